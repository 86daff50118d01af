//! One request, from inside a namespace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::network::{Host, Network};

const DEADLINE: Duration = Duration::from_secs(10);

/// Status code and body of `http://127.0.0.1:PORT/PATH` as `host` sees it.
pub fn get(network: &Network, host: Host, port: u16, path: &str) -> Result<(u16, String)> {
    request("GET", network, host, port, path)
}

/// The same of a POST without a body.
pub fn post(network: &Network, host: Host, port: u16, path: &str) -> Result<(u16, String)> {
    request("POST", network, host, port, path)
}

fn request(method: &str, network: &Network, host: Host, port: u16, path: &str) -> Result<(u16, String)> {
    let answer = network.within(host, || {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    });
    let answer = answer.with_context(|| format!("{method} 127.0.0.1:{port}{path} on {host}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((status.context("no HTTP status")?, body.to_owned()))
}
