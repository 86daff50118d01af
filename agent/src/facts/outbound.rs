//! Outbound traffic of the VM that goes through Envoy, as cluster.env says.

use std::net::IpAddr;

use ipnet::IpNet;

use super::number;

/// Part of [`super::Membership`]: the outbound traffic that is captured; all of it by default.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OutboundCapture {
    /// Networks whose addresses are captured (ISTIO_SERVICE_CIDR); `None` is `*`, all of them.
    pub networks: Option<Vec<IpNet>>,
    /// Networks that never are (ISTIO_SERVICE_EXCLUDE_CIDR).
    pub exclude_networks: Vec<IpNet>,
    /// Ports of others that never are (ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE).
    pub exclude_ports: Vec<u16>,
    /// Ports that are whatever the address (ISTIO_OUTBOUND_PORTS).
    pub ports: Vec<u16>,
    /// Groups of this VM, by name or number, whose traffic alone is (ISTIO_OUTBOUND_OWNER_GROUPS); `None` is `*`, all.
    pub groups: Option<Vec<String>>,
    /// Groups whose traffic never is (ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE).
    pub exclude_groups: Vec<String>,
}

impl OutboundCapture {
    /// True where some traffic may be captured.
    pub fn is_any(&self) -> bool {
        self.networks.as_ref().is_none_or(|networks| !networks.is_empty()) || !self.ports.is_empty()
    }
}

/// Networks between commas; a bare address is a network of one, and nothing is none.
///
/// # Errors
/// Names what is neither.
pub(crate) fn networks(list: &str) -> Result<Vec<IpNet>, String> {
    let wrong = |item: &str| {
        format!("{item:?} is neither a network, such as 10.0.0.0/8, nor an address: write them with commas between")
    };
    let items = list.split(',').map(str::trim).filter(|_| !list.trim().is_empty());
    items.map(|item| network(item).ok_or_else(|| wrong(item))).collect()
}

/// A network or an address, as everybody reads it: no part of it begins with a 0 that others take for octal, and no IPv4
/// network is written as one of IPv6, which no packet would match.
pub(crate) fn network(item: &str) -> Option<IpNet> {
    let (address, length) = match item.split_once('/') {
        Some((address, length)) => (address, Some(number::whole(length)?)),
        None => (item, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let length = length.unwrap_or_else(|| if address.is_ipv4() { 32 } else { 128 });
    let network = IpNet::new(address, length).ok()?;
    (address.to_canonical() == address).then(|| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_a_bare_address_is_one() {
        let shown = |list: &str| networks(list).map(|all| all.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(shown(" "), Ok(vec![]));
        assert_eq!(
            shown("10.1.0.0/8, 168.63.129.16,fd00::/8,::1").unwrap(),
            ["10.0.0.0/8", "168.63.129.16/32", "fd00::/8", "::1/128"]
        );
        for wrong in [
            "10.0.0.0/33",
            "*",
            "10.0.0.0/8,",
            "tenth",
            "10.0.0.0-10.0.0.9",
            "10.0.0.0/8;10.1.0.0/16",
            "010.0.0.0/8",
            "10.0.0.0/08",
            "::ffff:10.0.0.0/104",
            "fe80::1%eth0",
        ] {
            assert!(networks(wrong).unwrap_err().contains("is neither a network"), "{wrong}");
        }
    }
}
