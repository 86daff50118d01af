//! VMs as callers in another cluster reach them: at their addresses, or through the gateway of their network.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Value, json};

use super::{Group, workload};

/// Port of a gateway between networks (AUTO_PASSTHROUGH), as Istio's samples have it.
pub(super) const PASSTHROUGH_PORT: u16 = 15443;

/// The way from a cluster that the VMs don't join.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// The VMs' own addresses.
    Addresses(Vec<IpAddr>),
    /// The gateway of the VMs' network, which leads on by the name that TLS names.
    Gateway(Gateway),
    /// istiod knows it, because it reads the VMs' cluster (a remote secret).
    Known,
}

/// A gateway between networks, `ADDRESS` or `ADDRESS:PORT`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Gateway {
    address: IpAddr,
    port: u16,
}

impl FromStr for Gateway {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse() {
            return Ok(Self {
                address,
                port: PASSTHROUGH_PORT,
            });
        }
        let socket = text.parse::<std::net::SocketAddr>().ok().filter(|at| at.port() != 0);
        let at = socket.ok_or_else(|| {
            format!(
                "{text:?} is no address of a gateway, such as \"34.5.6.7\", \"34.5.6.7:15443\" or \"[fd00::7]:15443\""
            )
        })?;
        Ok(Self {
            address: at.ip(),
            port: at.port(),
        })
    }
}

impl fmt::Display for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// The Service gives callers the name, and an address to call; it selects nothing, so that its endpoints are others'.
pub(super) fn objects(group: &Group, way: &Way) -> Vec<Value> {
    let mut objects = vec![workload::service(group, false)];
    match way {
        Way::Addresses(addresses) => objects.push(workload::service_entry(group, addresses)),
        Way::Gateway(gateway) => {
            objects.push(workload::service_entry_through(group, gateway.address, gateway.port));
            objects.push(named_by_tls(group));
        }
        Way::Known => {}
    }
    objects
}

/// The gateway takes the way from the server name, in which istiod of the VMs' cluster has port and host
/// (istio/pilot/pkg/model, BuildDNSSrvSubsetKey).
fn named_by_tls(group: &Group) -> Value {
    let host = workload::host(group);
    let ports = group.ports.iter().map(|port| {
        json!({
            "port": { "number": port.port },
            "tls": { "mode": "ISTIO_MUTUAL", "sni": format!("outbound_.{}_._.{host}", port.port) },
        })
    });
    json!({
        "apiVersion": workload::ISTIO,
        "kind": "DestinationRule",
        "metadata": { "name": group.name.as_str(), "namespace": group.namespace.as_str() },
        "spec": { "host": host, "trafficPolicy": { "portLevelSettings": ports.collect::<Vec<_>>() } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_is_an_address_with_istios_port_unless_it_has_its_own() {
        for (text, expected) in [
            ("34.5.6.7", "34.5.6.7:15443"),
            ("34.5.6.7:443", "34.5.6.7:443"),
            ("fd00::7", "[fd00::7]:15443"),
            ("[fd00::7]:443", "[fd00::7]:443"),
        ] {
            assert_eq!(text.parse::<Gateway>().unwrap().to_string(), expected);
        }
        for text in ["", "gateway.example", "34.5.6.7:0", "34.5.6.7:65536", "fd00::7:"] {
            assert!(text.parse::<Gateway>().is_err(), "{text}");
        }
    }
}
