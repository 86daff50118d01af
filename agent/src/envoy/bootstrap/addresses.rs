//! Addresses, as Envoy's configuration has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde_json::{Value, json};

use crate::facts::Membership;

/// The addresses that stand for "this host" and "all addresses", which Istio picks by the VM's own addresses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::envoy) struct LocalAddresses {
    pub(in crate::envoy) localhost: IpAddr,
    pub(super) wildcard: IpAddr,
    /// The two addresses of the other family, in dual-stack.
    pub(super) other: Option<(IpAddr, IpAddr)>,
}

impl LocalAddresses {
    pub(in crate::envoy) fn of(membership: &Membership) -> Self {
        let v4: (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into());
        let v6: (IpAddr, IpAddr) = (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into());
        let first = membership.instance_ips.first();
        let ((localhost, wildcard), other) = match membership.families() {
            (true, true) if first.is_some_and(IpAddr::is_ipv6) => (v6, Some(v4)),
            (true, true) => (v4, Some(v6)),
            (false, true) => (v6, None),
            _ => (v4, None),
        };
        Self {
            localhost,
            wildcard,
            other,
        }
    }
}

pub(super) fn tcp(address: IpAddr, port: u16) -> Value {
    json!({ "socket_address": { "protocol": "TCP", "address": address, "port_value": port } })
}

pub(super) fn pipe(path: &Path) -> Value {
    json!({ "pipe": { "path": path } })
}
