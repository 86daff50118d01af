//! Owners of shares.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A client, as what it can't easily be many of: a user of this VM, a host of the network.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Client {
    /// A user of this VM, by number.
    User(u32),
    /// A host of the network, or a local process whose user isn't known.
    Host(IpAddr),
}

impl Client {
    /// The host at this address. One of IPv6 has a whole /64 to speak from, this VM all of 127.0.0.0/8.
    pub fn host(address: IpAddr) -> Self {
        Self::Host(match address.to_canonical() {
            IpAddr::V4(ip) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if !ip.is_loopback() => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
            ip => ip,
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::Host(IpAddr::V6(ip)) if !ip.is_loopback() => write!(f, "{ip}/64"),
            Self::Host(ip) => write!(f, "{ip}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_one_client_whatever_address_of_its_it_speaks_from() {
        let host = |text: &str| Client::host(text.parse().unwrap()).to_string();
        assert_eq!(host("::ffff:10.0.0.9"), "10.0.0.9");
        assert_eq!(host("2001:db8::1:2:3:4"), "2001:db8::/64");
        assert_eq!(host("::1"), "::1");
        assert_eq!(host("127.71.164.40"), "127.0.0.1");
        assert_eq!(Client::User(0).to_string(), "uid 0");
    }
}
