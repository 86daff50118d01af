//! Servers, as configurations name them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{is_host_name, is_of_a_machine, number};

/// Istiod's port without TLS (istio.io "Ports used by Istio").
const PLAINTEXT_PORT: u16 = 15010;

/// A server's name or address and its port: `istiod.istio-system.svc:15012`, `10.0.0.1:15012`, `[fd00::1]:15012`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HostPort<'a> {
    /// The name or address, an IPv6 address without its brackets.
    pub host: &'a str,
    /// The port, never 0.
    pub port: u16,
}

/// Text that names no server and port.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not host:port, such as \"istiod.example.com:15012\" or \"[fd00::2]:15012\"")]
pub struct NotHostPort(String);

impl<'a> HostPort<'a> {
    /// Splits `host:port`.
    ///
    /// # Errors
    /// When the host is no name or address, an IPv6 address has no brackets, or the port is missing, 0 or no number.
    pub fn parse(text: &'a str) -> Result<Self, NotHostPort> {
        let parsed = || {
            let (_, port) = text.rsplit_once(':')?;
            let (host, port) = (Self::host_of(text), number::port(port)?);
            let is_bracketed = text.starts_with('[') && text.starts_with(&format!("[{host}]:"));
            let is_host = match is_bracketed {
                true => is_ipv6(host),
                false => is_host_name(host) || host.parse::<Ipv4Addr>().is_ok(),
            };
            is_host.then_some(Self { host, port })
        };
        parsed().ok_or_else(|| NotHostPort(text.to_owned()))
    }

    /// Checks that `text` is `host:port` of a machine, and not istiod's port without TLS, where a token would be readable.
    ///
    /// # Errors
    /// Say which of them it is, and what to write.
    pub fn check_encrypted(text: &str) -> Result<(), String> {
        match HostPort::parse(text) {
            Ok(HostPort { port, .. }) if port == PLAINTEXT_PORT => Err(format!(
                "{text:?} is refused: port {PLAINTEXT_PORT} has no TLS, and the token would go in plain text; use 15012"
            )),
            Ok(HostPort { host, .. }) if host.parse().is_ok_and(|ip: IpAddr| !is_of_a_machine(ip)) => Err(format!(
                "{text:?} is refused: {host} is the address of no machine: write the one that is to be called"
            )),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The host of a text that may lack a port, an IPv6 address without its brackets.
    pub fn host_of(text: &'a str) -> &'a str {
        match text.strip_prefix('[').and_then(|address| address.split_once(']')) {
            Some((address, _)) => address,
            None => text.rsplit_once(':').map_or(text, |(host, _)| host),
        }
    }
}

/// True for an IPv6 address, its zone included where it has one.
fn is_ipv6(host: &str) -> bool {
    let address = host.split_once('%').map_or(host, |(address, _)| address);
    address.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_split_at_the_port() {
        for (text, host) in [
            ("istiod:15012", "istiod"),
            ("[::1]:15012", "::1"),
            ("[fe80::1%eth0]:15012", "fe80::1%eth0"),
        ] {
            assert_eq!(HostPort::parse(text).unwrap(), HostPort { host, port: 15012 });
        }
        for wrong in [
            "",
            ":1",
            "[]:1",
            "istiod",
            "istiod:",
            "istiod:x",
            "istiod:0",
            "istiod:70000",
            "[::1]",
            "[istiod]:15012",
            "https://istiod:15012",
            "user@istiod:15012",
            "istiod a:15012",
            " istiod:15012",
            "istiod:15012 ",
            "fd00::2:15012",
            "[fd00::2]x:15012",
            "istiod:+15012",
            "istiod:015012",
            "istiod..svc:15012",
            "256.0.0.1:15012",
            "010.0.0.1:15012",
        ] {
            let error = HostPort::parse(wrong).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{wrong:?} is not host:port")), "{error}");
        }
    }

    #[test]
    fn host_needs_no_port() {
        for (text, host) in [("istiod", "istiod"), ("istiod:x", "istiod"), ("[::1]", "::1"), ("", "")] {
            assert_eq!(HostPort::host_of(text), host);
        }
    }
}
