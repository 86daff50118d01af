//! envoy.config.core.v3.Address.

use serde::{Deserialize, Serialize};

/// envoy.config.core.v3.Address.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Address {
    /// An address and a port.
    pub socket_address: SocketAddress,
    /// A unix socket.
    pub pipe: Option<Pipe>,
}

impl Address {
    /// The address, or the path of a unix socket.
    pub fn host(&self) -> &str {
        match &self.pipe {
            Some(pipe) => &pipe.path,
            None => &self.socket_address.address,
        }
    }
}

/// envoy.config.core.v3.SocketAddress.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct SocketAddress {
    /// IP address.
    pub address: String,
    /// Port.
    pub port_value: u16,
}

/// envoy.config.core.v3.Pipe.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct Pipe {
    /// Path of the socket.
    pub path: String,
}
