//! Servers, as configurations name them.

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
#[error("{0:?} is not host:port")]
pub struct NotHostPort(String);

impl<'a> HostPort<'a> {
    /// Splits `host:port`.
    ///
    /// # Errors
    /// When the host is empty, or the port missing, 0 or no number.
    pub fn parse(text: &'a str) -> Result<Self, NotHostPort> {
        let parsed = || {
            let (_, port) = text.rsplit_once(':')?;
            let (host, port) = (Self::host_of(text), port.parse().ok()?);
            (!host.is_empty() && port != 0).then_some(Self { host, port })
        };
        parsed().ok_or_else(|| NotHostPort(text.to_owned()))
    }

    /// The host of a text that may lack a port, an IPv6 address without its brackets.
    pub fn host_of(text: &'a str) -> &'a str {
        match text.strip_prefix('[').and_then(|address| address.split_once(']')) {
            Some((address, _)) => address,
            None => text.rsplit_once(':').map_or(text, |(host, _)| host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_are_split_at_the_port() {
        for (text, host) in [("istiod:15012", "istiod"), ("[::1]:15012", "::1")] {
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
        ] {
            let error = HostPort::parse(wrong).unwrap_err().to_string();
            assert_eq!(error, format!("{wrong:?} is not host:port"));
        }
    }

    #[test]
    fn a_host_needs_no_port() {
        for (text, host) in [("istiod", "istiod"), ("istiod:x", "istiod"), ("[::1]", "::1"), ("", "")] {
            assert_eq!(HostPort::host_of(text), host);
        }
    }
}
