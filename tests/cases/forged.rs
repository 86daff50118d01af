//! Whoever has conntrack take a packet for the middle of a connection gets no further than anybody else.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::istiod::PeerAuthentication;
use e2e::mesh::{Mesh, with_mesh};
use e2e::network::Host;
use e2e::vm::Settings;
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::both;
use crate::packet::{ACK, MD5, connect_from, send};

/// First bytes of a client of HTTP/2 (RFC 9113, section 3.4), and an empty SETTINGS frame: a server answers with its
/// own.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const TRIES: u16 = 12;

pub(crate) fn trials() -> Vec<Trial> {
    both("STRICT: a forged packet opens no way to the application", |kind| {
        with_mesh(kind, Settings::default(), forged)
    })
    .into()
}

fn forged(mesh: &mut Mesh) -> Result<()> {
    mesh.set_peer_authentication(PeerAuthentication::Strict)?;
    let _agent = mesh.join()?;
    let plaintext = mesh.plaintext_calls_to_the_vm().at_rate(10, Duration::from_secs(1));
    eventually("STRICT to be in force", PATIENCE, || {
        let calls = plaintext.run(&mesh.network, Host::Outside)?;
        ensure!(calls.answered().next().is_none(), "{calls}");
        Ok(())
    })?;
    let to = SocketAddr::new(IpAddr::V4(Host::Vm.ipv4()), 3550);
    for port in 21000..21000 + TRIES {
        let from = SocketAddr::new(IpAddr::V4(Host::Outside.ipv4()), port);
        let said = mesh.network.within(Host::Outside, || {
            send(from, to, ACK, &MD5);
            Ok(greeted(from, to).unwrap_or_default())
        })?;
        ensure!(said.is_empty(), "try {port}: {said:x?} in plaintext");
    }
    mesh.expect_calls().map(drop)
}

/// Bytes that the other side sends to a client of HTTP/2 without TLS.
fn greeted(from: SocketAddr, to: SocketAddr) -> std::io::Result<Vec<u8>> {
    let mut stream = connect_from(from, to, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(HELLO)?;
    let mut answer = [0; 64];
    let length = stream.read(&mut answer)?;
    Ok(answer[..length].to_vec())
}
