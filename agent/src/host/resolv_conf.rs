//! resolv.conf(5), for whoever asks its name servers, or redirects what is asked of them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::Path;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::{Host, Read, ReadError};

/// Longest file: a resolv.conf has some lines.
const MAX_BYTES: usize = 64 << 10;
/// Most name servers: a C library asks three, and a longer list is not one that a person made.
const MAX_SERVERS: usize = 16;
/// The server of a file that names none.
const LOCAL: NameServer = NameServer {
    address: IpAddr::V4(Ipv4Addr::LOCALHOST),
    zone: None,
};

/// The name servers and the search list of a resolv.conf.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResolvConf {
    /// Name servers in order of preference, each once, at most 16; one at least, where nobody took it out.
    pub servers: Vec<NameServer>,
    /// Domains that are tried behind a name; lower case, without the last dot.
    pub search: Vec<String>,
    /// Words where a name server's address should be.
    pub unusable: Vec<String>,
}

/// One name server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NameServer {
    /// The server's address.
    pub address: IpAddr,
    /// The interface behind the `%` of a link-local address. A destination on the wire doesn't have it, and a socket
    /// can't do without.
    pub zone: Option<String>,
}

impl NameServer {
    /// The address to ask the server at; `None` where there is none: a link-local one needs an interface that is there.
    pub fn socket_address(&self, port: u16) -> Option<SocketAddr> {
        match self.address {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                let zone = self.zone.as_deref()?;
                let index = zone.parse().ok().or_else(|| if_nametoindex(zone).ok())?;
                Some(SocketAddrV6::new(ip, port, 0, index).into())
            }
            ip => Some(SocketAddr::new(ip, port)),
        }
    }

    /// Tells whether queries to it can be sent to a server on this VM in its place. Those to a link-local address can't:
    /// their sockets are bound to its interface, where no answer from loopback comes in.
    pub fn is_redirectable(&self) -> bool {
        !matches!(self.address, IpAddr::V6(ip) if ip.is_unicast_link_local())
    }
}

impl Host {
    /// Reads a resolv.conf; `None` when there is none. What is no file, such as a directory or a link that leads to
    /// itself, is none for the C library either.
    ///
    /// # Errors
    /// When it can't be read, or is longer than 64 KiB.
    pub fn resolv_conf(&self, path: &Path) -> Result<Option<ResolvConf>, ReadError> {
        let bytes = match self.read_bytes(path, Read::max(MAX_BYTES).following_links()) {
            Err(error) if is_no_file(error.problem()) => None,
            read => read?,
        };
        // Comments may be in any encoding; what the C library reads of the file is ASCII.
        Ok(bytes.map(|bytes| ResolvConf::parse(&String::from_utf8_lossy(&bytes))))
    }
}

fn is_domain(word: &str) -> bool {
    !word.is_empty() && !word.contains(|c: char| c.is_ascii_whitespace())
}

fn is_no_file(error: &io::Error) -> bool {
    error.kind() == ErrorKind::InvalidInput || error.raw_os_error() == Some(Errno::ELOOP as i32)
}

impl Default for ResolvConf {
    /// The configuration where there is no file.
    fn default() -> Self {
        Self::parse("")
    }
}

impl ResolvConf {
    /// Parses leniently, as the C library does: lines that mean nothing are passed over, the last `search` or `domain`
    /// counts, a carriage return is part of a word, and where no server is named this machine is asked (resolv.conf(5)).
    pub fn parse(text: &str) -> Self {
        let mut conf = Self {
            servers: Vec::new(),
            search: Vec::new(),
            unusable: Vec::new(),
        };
        for line in text.split('\n') {
            let mut words = line.split([' ', '\t']);
            // One behind a blank is none to the C library (res_init.c, MATCH).
            let keyword = words.next();
            let mut words = words.filter(|word| !word.is_empty());
            match keyword {
                Some("nameserver") => {
                    if let Some(word) = words.next() {
                        conf.add_server(word);
                    }
                }
                Some("search" | "domain") => {
                    let domain = |word: &str| word.trim_end_matches('.').to_ascii_lowercase();
                    conf.search = words.map(domain).filter(|domain| is_domain(domain)).collect();
                }
                _ => {}
            }
        }
        if conf.servers.is_empty() {
            conf.servers.push(LOCAL);
        }
        conf
    }

    fn add_server(&mut self, word: &str) {
        let (address, zone) = match word.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (word, None),
        };
        let address = match address.parse() {
            // The kernel sends what is for these to this machine, and the rules see it on its way there.
            Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.into(),
            Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.into(),
            Ok(address) => address,
            Err(_) => {
                self.unusable.push(word.to_owned());
                return;
            }
        };
        let server = NameServer { address, zone };
        if self.servers.len() < MAX_SERVERS && !self.servers.contains(&server) {
            self.servers.push(server);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn resolv_conf_is_read_line_by_line() {
        let text = "# nameserver 1.1.1.1\nnameserver 169.254.169.254\n  nameserver 10.9.9.9\n\tsearch z\nnameserver\t fd00::1 # x\nnameserver fe80::1%eth0\n\
                    nameserver 169.254.169.254\nnameserver nonsense\nnameserver\n\
                    domain a\nsearch C.Proj.internal. google.internal\noptions edns0\n";
        let conf = ResolvConf::parse(text);
        let server = |address: &str, zone: Option<&str>| NameServer {
            address: address.parse().unwrap(),
            zone: zone.map(str::to_owned),
        };
        let expected = [
            server("169.254.169.254", None),
            server("fd00::1", None),
            server("fe80::1", Some("eth0")),
        ];
        assert_eq!(conf.servers, expected);
        assert_eq!(conf.search, ["c.proj.internal", "google.internal"]);
        assert_eq!(conf.unusable, ["nonsense"]);
    }

    #[test]
    fn link_local_server_is_asked_through_its_interface_and_not_redirected() {
        let conf = ResolvConf::parse(
            "nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3\nnameserver fe80::4%none\nnameserver ::5\n",
        );
        let asked: Vec<_> = conf.servers.iter().map(|server| server.socket_address(53)).collect();
        let link = |address: &str, index| {
            let ip = address.parse().unwrap();
            Some(SocketAddr::from(SocketAddrV6::new(ip, 53, 0, index)))
        };
        let lo = if_nametoindex("lo").unwrap();
        let other = Some("[::5]:53".parse().unwrap());
        assert_eq!(asked, [link("fe80::1", lo), link("fe80::2", 7), None, None, other]);
        let redirected: Vec<_> = conf.servers.iter().map(NameServer::is_redirectable).collect();
        assert_eq!(redirected, [false, false, false, false, true]);
    }

    #[test]
    fn comment_that_is_no_utf8_keeps_nobody_from_the_servers() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), crate::host::System);
        let path = Path::new("/resolv.conf");
        std::fs::write(root.path().join("resolv.conf"), b"# r\xe9seau\nnameserver 10.0.0.1\n").unwrap();
        assert_eq!(host.resolv_conf(path).unwrap().unwrap().servers.len(), 1);
    }

    #[test]
    fn resolv_conf_without_a_server_has_this_machine_asked() {
        for (text, server) in [
            ("", "127.0.0.1"),
            ("options ndots:5\nnameserver nonsense\n", "127.0.0.1"),
            // The C library doesn't know where such a line ends.
            ("nameserver 10.0.0.1\r\n", "127.0.0.1"),
            ("nameserver 0.0.0.0\n", "127.0.0.1"),
            ("nameserver ::\n", "::1"),
        ] {
            let conf = ResolvConf::parse(text);
            let addresses: Vec<_> = conf.servers.iter().map(|server| server.address).collect();
            assert_eq!(addresses, [server.parse::<IpAddr>().unwrap()], "{text:?}");
        }
        let conf = ResolvConf::parse("nameserver 10.0.0.1\r\nsearch a b\r\n");
        assert_eq!(
            (conf.unusable, conf.search),
            (vec!["10.0.0.1\r".to_owned()], vec!["a".to_owned()])
        );
    }

    #[test]
    fn resolv_conf_that_is_no_file_names_nobody() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), crate::host::System);
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.path().join("dangling")).unwrap();
        std::fs::create_dir(root.path().join("folder")).unwrap();
        for path in ["/loop", "/dangling", "/folder", "/missing"] {
            assert_eq!(host.resolv_conf(Path::new(path)).unwrap(), None, "{path}");
        }
        std::fs::write(root.path().join("long"), "#".repeat(MAX_BYTES + 1)).unwrap();
        assert!(host.resolv_conf(Path::new("/long")).is_err());
    }

    proptest! {
        #[test]
        fn resolv_conf_of_any_text_is_read(text in "(nameserver |search |\n|%|\\PC){0,60}") {
            let servers = ResolvConf::parse(&text).servers.len();
            assert!((1..=MAX_SERVERS).contains(&servers), "{servers}");
        }
    }
}
