//! Clusters that send their calls to this VM, as Envoy is told of them: by these the agent sees when istiod has taken the
//! VM out of the mesh.

use std::net::IpAddr;

use istio_api::frame::{Fields, Frame, FrameError, XdsProtocol, count_parts};

/// The type of a cluster's endpoints.
pub(super) const CLUSTER_LOAD_ASSIGNMENT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

/// `resources` of either response.
const RESOURCES: u32 = 2;
/// `DeltaDiscoveryResponse.removed_resources`.
const REMOVED_RESOURCES: u32 = 6;
/// `SocketAddress.address` as the first byte of its encoding: field 2, of a length.
const ADDRESS: u8 = 0x12;

/// The clusters of a response with endpoints, true for those in which the VM is one. Endpoints are not parsed: one of the
/// VM's addresses as the address of a socket stands in their bytes or does not.
pub(super) fn read(
    protocol: XdsProtocol,
    frame: &Frame,
    addresses: &[IpAddr],
) -> Result<Vec<(String, bool)>, FrameError> {
    count_parts(&frame.0)?;
    let addresses: Vec<Vec<u8>> = addresses.iter().map(encoded).collect();
    let mut clusters = Vec::new();
    for field in Fields(frame.0.clone()) {
        match field? {
            (RESOURCES, resource) => {
                let listed = addresses.iter().any(|address| contains(&resource, address));
                clusters.push((name(protocol, Fields(resource))?, listed));
            }
            (REMOVED_RESOURCES, name) if protocol == XdsProtocol::Delta => clusters.push((text(&name), false)),
            _ => {}
        }
    }
    Ok(clusters)
}

/// Name of a cluster: `Resource.name`, or `Any.value`'s `ClusterLoadAssignment.cluster_name`.
fn name(protocol: XdsProtocol, resource: Fields) -> Result<String, FrameError> {
    let path: &[u32] = match protocol {
        XdsProtocol::Delta => &[3],
        XdsProtocol::Sotw => &[2, 1],
    };
    let mut fields = resource;
    for wanted in path {
        let found = fields.find(|field| !matches!(field, Ok((number, _)) if number != wanted));
        fields = Fields(found.transpose()?.map(|(_, content)| content).unwrap_or_default());
    }
    Ok(text(&fields.0))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn encoded(address: &IpAddr) -> Vec<u8> {
    let text = address.to_string();
    let length = u8::try_from(text.len()).unwrap_or_default();
    [&[ADDRESS, length], text.as_bytes()].concat()
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use istio_api::ads::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
    use istio_api::rpc::Any;

    use super::*;

    const CATALOG: &str = "outbound|3550||catalog.shop.svc.cluster.local";
    const CART: &str = "outbound|7070||cart.shop.svc.cluster.local";

    /// A ClusterLoadAssignment: its name, and SocketAddress at the depth that it has.
    fn assignment(cluster: &str, addresses: &[&str]) -> Any {
        let nested = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[tag, length], content].concat()
        };
        let endpoint = |address: &&str| {
            let socket = [nested(ADDRESS, address.as_bytes()), vec![0x18, 0x50]].concat();
            nested(0x12, &nested(0x0a, &nested(0x0a, &nested(0x0a, &socket))))
        };
        let endpoints: Vec<u8> = addresses.iter().flat_map(endpoint).collect();
        Any {
            type_url: CLUSTER_LOAD_ASSIGNMENT.to_owned(),
            value: [nested(0x0a, cluster.as_bytes()), nested(0x12, &endpoints)]
                .concat()
                .into(),
        }
    }

    #[test]
    fn clusters_of_the_vm_are_those_that_have_its_address() {
        let ours = ["10.0.0.3".parse().unwrap(), "fd00::3".parse().unwrap()];
        let assignments = [
            (CATALOG, assignment(CATALOG, &["10.0.0.5", "10.0.0.3"])),
            ("v6", assignment("v6", &["fd00::3"])),
            // An address that begins or ends like the VM's is another's.
            (CART, assignment(CART, &["10.0.0.33", "110.0.0.3"])),
            ("empty", assignment("empty", &[])),
        ];
        let delta = Frame::of(&DeltaDiscoveryResponse {
            type_url: CLUSTER_LOAD_ASSIGNMENT.to_owned(),
            resources: assignments
                .iter()
                .map(|(name, any)| Resource {
                    name: (*name).to_owned(),
                    resource: Some(any.clone()),
                    ..Resource::default()
                })
                .collect(),
            removed_resources: vec!["gone".to_owned()],
            ..DeltaDiscoveryResponse::default()
        });
        let sotw = Frame::of(&DiscoveryResponse {
            type_url: CLUSTER_LOAD_ASSIGNMENT.to_owned(),
            resources: assignments.iter().map(|(_, any)| any.clone()).collect(),
            ..DiscoveryResponse::default()
        });
        let wanted = [(CATALOG, true), ("v6", true), (CART, false), ("empty", false)];
        let mut wanted: Vec<(String, bool)> = wanted.map(|(name, listed)| (name.to_owned(), listed)).into();
        assert_eq!(read(XdsProtocol::Sotw, &sotw, &ours).unwrap(), wanted);
        wanted.push(("gone".to_owned(), false));
        assert_eq!(read(XdsProtocol::Delta, &delta, &ours).unwrap(), wanted);
    }
}
