//! Who Envoy says that it is, in the bytes of its request.

use std::net::IpAddr;

use bytes::Bytes;
use istio_api::ads::Node;
use prost::Message as _;

/// The address in a node's id, `sidecar~ADDRESS~NAME.NAMESPACE~DOMAIN`, by which istiod knows a VM; `None` for what is no node
/// of Istio's.
pub(super) fn address(node: &Bytes) -> Option<IpAddr> {
    let node = Node::decode(node.clone()).ok()?;
    node.id.split('~').nth(1)?.parse().ok()
}

/// True when istiod makes the same configuration for both. The bytes of one Envoy and of the next differ, as maps have no
/// order there.
pub(super) fn are_alike(one: &Bytes, other: &Bytes) -> bool {
    let read = |node: &Bytes| Node::decode(node.clone()).ok();
    read(one).is_some_and(|node| Some(node) == read(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_alike_whatever_the_order_of_their_fields() {
        let node = |bytes: &'static [u8]| Bytes::from_static(bytes);
        // Fields 1 and 2, the id and the cluster.
        let [one, turned] = [node(b"\x0a\x02vm\x12\x01c"), node(b"\x12\x01c\x0a\x02vm")];
        assert!(are_alike(&one, &turned));
        assert!(!are_alike(&one, &node(b"\x0a\x02vm")));
        assert!(
            !are_alike(&node(b"\xff"), &node(b"\xff")),
            "neither is known to be anybody"
        );
    }

    #[test]
    fn address_of_a_node_is_the_second_part_of_its_id() {
        let of_id = |id: &str| {
            let node = Node {
                id: id.to_owned(),
                ..Node::default()
            };
            address(&node.encode_to_vec().into())
        };
        assert_eq!(
            of_id("sidecar~10.0.0.3~vm.ns~ns.svc"),
            Some(IpAddr::from([10, 0, 0, 3]))
        );
        assert_eq!(of_id("sidecar~fd00::3~vm.ns~ns.svc"), "fd00::3".parse().ok());
        for id in ["", "vm", "a~b~c"] {
            assert_eq!(of_id(id), None, "{id}");
        }
        assert_eq!(address(&Bytes::from_static(b"\xff")), None);
    }
}
