//! The address in a node's id, `sidecar~ADDRESS~NAME.NAMESPACE~DOMAIN`, by which istiod knows a VM.

use std::net::IpAddr;

use bytes::Bytes;
use istio_api::ads::Node;
use prost::Message as _;

/// The address of the VM that a node, as it is in a request, is of; `None` for what is no node of Istio's.
pub(super) fn of(node: &Bytes) -> Option<IpAddr> {
    let node = Node::decode(node.clone()).ok()?;
    node.id.split('~').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_of_a_node_is_the_second_part_of_its_id() {
        let of_id = |id: &str| {
            let node = Node {
                id: id.to_owned(),
                ..Node::default()
            };
            of(&node.encode_to_vec().into())
        };
        assert_eq!(
            of_id("sidecar~10.0.0.3~vm.ns~ns.svc"),
            Some(IpAddr::from([10, 0, 0, 3]))
        );
        assert_eq!(of_id("sidecar~fd00::3~vm.ns~ns.svc"), "fd00::3".parse().ok());
        for id in ["", "vm", "a~b~c"] {
            assert_eq!(of_id(id), None, "{id}");
        }
        assert_eq!(of(&Bytes::from_static(b"\xff")), None);
    }
}
