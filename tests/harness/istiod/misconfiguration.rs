//! Faults of the mesh's configuration: of calls to cartservice, and of those to the VM.
//!
//! Field numbers are those of envoy/config/{cluster,endpoint,listener,route}/v3.

use anyhow::Result;
use bytes::Bytes;
use istio_api::rpc::Any;
use kit::wire::{Message, Value};
use prost::Message as _;

const CART: &str = "outbound|7070||cartservice.onlineboutique.svc.cluster.local";

/// Faults of a configuration.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Misconfiguration {
    /// cartservice has no endpoints.
    NoEndpoint,
    /// A VirtualService answers in cartservice's place.
    DirectResponse,
    /// A VirtualService sends callers of cartservice elsewhere.
    Redirect,
    /// A VirtualService has all calls to cartservice fail.
    Abort,
    /// A VirtualService names a subset of cartservice that no DestinationRule has.
    NoSubset,
    /// An AuthorizationPolicy lets nobody call the VM.
    DenyAll,
}

impl Misconfiguration {
    /// A resource with the fault in it, where it is about that one.
    pub(super) fn applied(self, type_url: &str, name: &str, value: Bytes) -> Bytes {
        let kind = type_url.rsplit('.').next().unwrap_or_default();
        let edited = match (self, kind, name) {
            (Self::NoEndpoint, "ClusterLoadAssignment", CART) => without_endpoints(&value),
            (Self::DenyAll, "Listener", "virtualInbound") => with_empty_policy(&value),
            (_, "RouteConfiguration", "7070") => self.rerouted(&value),
            _ => return value,
        };
        edited.map_or(value, Bytes::from)
    }

    fn rerouted(self, routes: &[u8]) -> Result<Vec<u8>> {
        const ROUTE: u32 = 2;
        const REDIRECT: u32 = 3;
        const DIRECT_RESPONSE: u32 = 7;
        const TYPED_PER_FILTER_CONFIG: u32 = 13;
        let mut routes = Message::parse(routes)?;
        // virtual_hosts.routes
        routes.edit(&[2, 3], &mut |route| {
            match self {
                Self::DirectResponse => {
                    route.0.retain(|(field, _)| *field != ROUTE);
                    route.prepend(DIRECT_RESPONSE, Message(vec![(1, Value::Varint(503))]).encode());
                }
                Self::Redirect => {
                    route.0.retain(|(field, _)| *field != ROUTE);
                    let mut redirect = Message::default();
                    redirect.prepend(1, "elsewhere.example");
                    route.prepend(REDIRECT, redirect.encode());
                }
                Self::Abort => route.prepend(TYPED_PER_FILTER_CONFIG, abort()),
                Self::NoSubset => route.edit(&[ROUTE], &mut |action| {
                    action.0.retain(|(field, _)| *field != 1);
                    action.prepend(1, CART.replace("||", "|v2|"));
                    Ok(())
                })?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(routes.encode())
    }
}

/// An entry of a route's filters: the filter of faults, which answers every request with 555.
fn abort() -> Vec<u8> {
    let mut fault = Message(vec![(2, Value::Varint(555))]);
    // FaultAbort.percentage.numerator, of a hundred
    fault.prepend(3, Message(vec![(1, Value::Varint(100))]).encode());
    let mut faults = Message::default();
    faults.prepend(2, fault.encode());
    let config = Any {
        type_url: "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault".to_owned(),
        value: faults.encode().into(),
    };
    let mut entry = Message::default();
    entry.prepend(2, config.encode_to_vec());
    entry.prepend(1, "envoy.filters.http.fault");
    entry.encode()
}

fn without_endpoints(assignment: &[u8]) -> Result<Vec<u8>> {
    const ENDPOINTS: u32 = 2;
    let mut assignment = Message::parse(assignment)?;
    assignment.0.retain(|(field, _)| *field != ENDPOINTS);
    Ok(assignment.encode())
}

/// Puts an authorization filter without a policy before all HTTP filters, as istiod does for `spec: {}`.
fn with_empty_policy(listener: &[u8]) -> Result<Vec<u8>> {
    let mut rbac = Message::default();
    rbac.prepend(1, Vec::new());
    let config = Any {
        type_url: "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC".to_owned(),
        value: rbac.encode().into(),
    };
    let mut filter = Message::default();
    filter.prepend(4, config.encode_to_vec());
    filter.prepend(1, "envoy.filters.http.rbac");
    let mut listener = Message::parse(listener)?;
    // filter_chains.filters
    listener.edit(&[3, 3], &mut |network_filter| {
        if network_filter.bytes(1) != Some(b"envoy.filters.network.http_connection_manager") {
            return Ok(());
        }
        // typed_config.value, then HttpConnectionManager.http_filters
        network_filter.edit(&[4, 2], &mut |manager| {
            manager.prepend(5, filter.encode());
            Ok(())
        })
    })?;
    Ok(listener.encode())
}
