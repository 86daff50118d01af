//! resolv.conf(5), for whoever asks its name servers, or redirects what is asked of them.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::Path;

use nix::net::if_::if_nametoindex;

use super::{Host, Read, ReadError};

/// Longest file: a resolv.conf has some lines.
const MAX_BYTES: usize = 64 << 10;
/// Most name servers: a C library asks three, and a longer list is not one that a person made.
const MAX_SERVERS: usize = 16;

/// The name servers and the search list of a resolv.conf.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResolvConf {
    /// Name servers in order of preference, each once, at most 16.
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
    /// Reads a resolv.conf; `None` when there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn resolv_conf(&self, path: &Path) -> Result<Option<ResolvConf>, ReadError> {
        let bytes = self.read_bytes(path, Read::max(MAX_BYTES).following_links())?;
        // Comments may be in any encoding; what the C library reads of the file is ASCII.
        Ok(bytes.map(|bytes| ResolvConf::parse(&String::from_utf8_lossy(&bytes))))
    }
}

impl ResolvConf {
    /// Parses leniently, as the C library does: lines that mean nothing are passed over, the last `search` or `domain`
    /// counts.
    pub fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    if let Some(word) = words.next() {
                        conf.add_server(word);
                    }
                }
                Some("search" | "domain") => {
                    let domain = |word: &str| word.trim_end_matches('.').to_ascii_lowercase();
                    conf.search = words.map(domain).filter(|domain| !domain.is_empty()).collect();
                }
                _ => {}
            }
        }
        conf
    }

    fn add_server(&mut self, word: &str) {
        let (address, zone) = match word.split_once('%') {
            Some((address, zone)) => (address, Some(zone.to_owned())),
            None => (word, None),
        };
        let Ok(address) = address.parse() else {
            self.unusable.push(word.to_owned());
            return;
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
        let text = "# nameserver 1.1.1.1\nnameserver 169.254.169.254\n  nameserver\tfd00::1 # x\nnameserver fe80::1%eth0\n\
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

    proptest! {
        #[test]
        fn any_resolv_conf_is_read(text in "(nameserver |search |\n|%|\\PC){0,60}") {
            assert!(ResolvConf::parse(&text).servers.len() <= MAX_SERVERS);
        }
    }
}
