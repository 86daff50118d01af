//! Sockets that listen on this machine (proc(5): /proc/net/tcp, /proc/net/udp), and the interface that a call leaves by.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::network::source_towards;
use super::{Host, Protocol, Read};

/// Longest table that is read, in bytes: 150 for each socket, and a VM has no million of them.
const MAX_BYTES: usize = 128 << 20;
/// TCP_LISTEN and, for a datagram socket that is connected to nobody, TCP_CLOSE (net/tcp_states.h).
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

impl Host {
    /// The addresses that sockets of this network namespace listen on; none that can't be seen.
    pub fn listening(&self, protocol: Protocol) -> Vec<SocketAddr> {
        let (files, state) = match protocol {
            Protocol::Tcp => (["/proc/net/tcp", "/proc/net/tcp6"], LISTEN),
            Protocol::Udp => (["/proc/net/udp", "/proc/net/udp6"], UNCONNECTED),
        };
        let read = |file| {
            self.read(Path::new(file), Read::max(MAX_BYTES).following_links())
                .ok()
                .flatten()
        };
        files
            .into_iter()
            .filter_map(read)
            .flat_map(|text| in_state(&text, state))
            .collect()
    }

    /// The interface that a packet to `destination` leaves by, by the kernel's routes; `None` where none is known to have
    /// the address that it would leave with. Sends nothing.
    ///
    /// # Errors
    /// When there is no route.
    pub fn interface_to(&self, destination: SocketAddr) -> io::Result<Option<String>> {
        let source = source_towards(destination)?;
        if source == destination.ip() || source.is_loopback() {
            return Ok(Some("lo".to_owned()));
        }
        let all = if_addrs::get_if_addrs()?;
        Ok(all.into_iter().find(|it| it.ip() == source).map(|it| it.name))
    }
}

/// The local addresses of the lines of a table that are in a state.
pub(super) fn in_state(text: &str, state: &str) -> Vec<SocketAddr> {
    let lines = text.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, found) = (fields.next()?, fields.nth(1)?);
        (found == state).then(|| address(local)).flatten()
    });
    lines.collect()
}

/// `0100007F:0CD5`: words of the address in this machine's order, and the port.
fn address(text: &str) -> Option<SocketAddr> {
    let (words, port) = text.split_once(':')?;
    let word = |at: usize| {
        let digits = words.get(8 * at..8 * at + 8)?;
        Some(u32::from_str_radix(digits, 16).ok()?.to_ne_bytes())
    };
    let ip: IpAddr = match words.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let all = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            Ipv6Addr::from(<[u8; 16]>::try_from(all).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;

    use super::*;
    use crate::host::System;

    #[test]
    fn sockets_that_listen_are_found() {
        let host = Host::new("/", System);
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else { continue };
            let address = listener.local_addr().unwrap();
            assert!(host.listening(Protocol::Tcp).contains(&address), "{address}");
            assert!(!host.listening(Protocol::Udp).contains(&address), "{address}");
        }
    }

    #[test]
    fn call_to_this_machine_leaves_by_loopback() {
        let host = Host::new("/", System);
        let interface = host.interface_to("127.0.0.1:80".parse().unwrap()).unwrap();
        assert_eq!(interface.as_deref(), Some("lo"));
    }

    proptest! {
        #[test]
        fn table_of_any_text_is_read(text in "( |:|[0-9A-F]{8}|0A|\n|\\PC){0,60}") {
            let _ = in_state(&text, LISTEN);
        }
    }
}
