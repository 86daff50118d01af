//! A call by its two ends, as an operator writes it. Pure.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A call, by its two ends.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::cli) enum Target {
    /// A call of a program on this VM.
    Outbound {
        /// A name or an address.
        host: String,
        port: u16,
        /// Path of the request, where it is told.
        path: Option<String>,
    },
    /// A call to this VM.
    Inbound {
        /// The caller's address, where it is told.
        peer: Option<IpAddr>,
        /// The caller's port, where one connection is meant.
        peer_port: Option<u16>,
        port: u16,
    },
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("->") {
            Some((from, to)) => inbound(from, to),
            None if text.starts_with(':') => inbound("", text),
            None => outbound(text),
        }
        .ok_or_else(|| {
            format!(
                "{text:?} is no call: write HOST:PORT or ADDRESS:PORT, with a /PATH if you like, for one of this VM's, and \
                 :PORT or ADDRESS->:PORT for one to it"
            )
        })
    }
}

fn inbound(from: &str, to: &str) -> Option<Target> {
    let bare = from.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let (peer, peer_port) = match (from, bare) {
        ("", _) => (None, None),
        (_, Ok(address)) => (Some(address), None),
        (with_port, Err(_)) => {
            let both: SocketAddr = with_port.parse().ok()?;
            (Some(both.ip()), Some(both.port()))
        }
    };
    Some(Target::Inbound {
        peer,
        peer_port,
        port: to.strip_prefix(':')?.parse().ok().filter(|port| *port > 0)?,
    })
}

fn outbound(text: &str) -> Option<Target> {
    let text = ["http://", "grpc://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .unwrap_or(text);
    let (authority, path) = match text.find('/') {
        Some(at) => (&text[..at], Some(text[at..].to_owned())),
        None => (text, None),
    };
    let (host, port) = authority.rsplit_once(':')?;
    let host = host.strip_prefix('[').map_or(Some(host), |it| it.strip_suffix(']'))?;
    let is_address = host.parse::<IpAddr>().is_ok();
    let is_name = |host: &str| {
        host.bytes()
            .all(|it| it.is_ascii_alphanumeric() || b"-_.".contains(&it))
    };
    (is_address || !host.is_empty() && is_name(host)).then_some(())?;
    Some(Target::Outbound {
        host: host.trim_end_matches('.').to_ascii_lowercase(),
        port: port.parse().ok().filter(|port| *port > 0)?,
        path,
    })
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Outbound { host, port, path } => {
                let path = path.as_deref().unwrap_or_default();
                match host.contains(':') {
                    true => write!(f, "[{host}]:{port}{path}"),
                    false => write!(f, "{host}:{port}{path}"),
                }
            }
            Self::Inbound { peer, peer_port, port } => match (peer, peer_port) {
                (Some(peer), Some(from)) => write!(f, "{}->:{port}", SocketAddr::new(*peer, *from)),
                (Some(peer), None) => write!(f, "{peer}->:{port}"),
                (None, _) => write!(f, ":{port}"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_either_way_are_read_and_written() {
        for (text, written) in [
            ("cartservice:7070", "cartservice:7070"),
            ("Cart.Shop.svc.cluster.local.:7070", "cart.shop.svc.cluster.local:7070"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[fd00::1]:80/a", "[fd00::1]:80/a"),
            ("http://cart:80/shop/1", "cart:80/shop/1"),
            ("10.1.2.3:40000->:3550", "10.1.2.3:40000->:3550"),
            ("[fd00::1]:40000->:3550", "[fd00::1]:40000->:3550"),
            ("fd00::1->:3550", "fd00::1->:3550"),
            ("->:3550", ":3550"),
            (":3550", ":3550"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), written);
        }
        for wrong in [
            "",
            "cart",
            "cart:",
            "cart:0",
            "cart:70700",
            ":0",
            "->3550",
            "x->:3550",
            "a b:80",
            "[::1:80",
        ] {
            assert!(wrong.parse::<Target>().unwrap_err().contains("HOST:PORT"), "{wrong}");
        }
    }
}
