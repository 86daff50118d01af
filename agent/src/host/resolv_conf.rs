//! resolv.conf(5), for whoever asks its name servers, or redirects what is asked of them.

use std::net::IpAddr;
use std::path::Path;

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

impl Host {
    /// Reads a resolv.conf; `None` when there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn resolv_conf(&self, path: &Path) -> Result<Option<ResolvConf>, ReadError> {
        let text = self.read(path, Read::max(MAX_BYTES).following_links())?;
        Ok(text.map(|text| ResolvConf::parse(&text)))
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

    proptest! {
        #[test]
        fn any_resolv_conf_is_read(text in "(nameserver |search |\n|%|\\PC){0,60}") {
            assert!(ResolvConf::parse(&text).servers.len() <= MAX_SERVERS);
        }
    }
}
