//! The configuration that is served: a real istiod's for this VM, as recorded, with the changes that cases ask for.
//!
//! Field numbers are those of envoy/config/{listener,endpoint,core}/v3.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use bytes::Bytes;
use istio_api::ads::DeltaDiscoveryResponse;
use istio_api::rpc::{Any, Struct, Value, value};
use kit::wire::{Message, Value as Field};
use prost::Message as _;

use super::endpoints::Endpoints;
use super::misconfiguration::Misconfiguration;

const RECORDED: [&[u8]; 5] = [
    include_bytes!("../../data/xds/01-cds.pb"),
    include_bytes!("../../data/xds/02-eds.pb"),
    include_bytes!("../../data/xds/03-lds.pb"),
    include_bytes!("../../data/xds/04-rds.pb"),
    include_bytes!("../../data/xds/05-nds.pb"),
];

/// Into the recorded format of the access log, for the mesh's accessLogFormat: who calls.
const CALLER: &str = " caller=%DOWNSTREAM_PEER_URI_SAN%\n";

/// The cluster of the VM's own Service.
const CATALOG: &str = "outbound|3550||productcatalogservice.onlineboutique.svc.cluster.local";
const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// The mesh's demand on callers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerAuthentication {
    /// mTLS or plaintext.
    Permissive,
    /// mTLS.
    Strict,
}

/// All resources by type and name.
#[derive(Clone, Debug)]
pub(super) struct Config {
    recorded: BTreeMap<String, BTreeMap<String, Bytes>>,
    /// In the order in which istiod pushes: what is referred to comes first.
    types: Vec<String>,
    strict: bool,
    istio_filters: bool,
    endpoints: Endpoints,
    misconfiguration: Option<Misconfiguration>,
    /// Beside the recorded ones, and instead of those of the same name.
    added: BTreeMap<String, BTreeMap<String, Bytes>>,
}

impl Config {
    pub(super) fn recorded() -> Result<Self> {
        let mut config = Self {
            recorded: BTreeMap::new(),
            types: Vec::new(),
            strict: false,
            istio_filters: false,
            endpoints: Endpoints::new(),
            misconfiguration: None,
            added: BTreeMap::new(),
        };
        for bytes in RECORDED {
            let response = DeltaDiscoveryResponse::decode(bytes)?;
            let resources = response
                .resources
                .into_iter()
                .filter_map(|r| Some((r.name, r.resource?.value)));
            config.recorded.insert(response.type_url.clone(), resources.collect());
            config.types.push(response.type_url);
        }
        config.put_the_pod_into_the_mesh()?;
        config.log_callers()?;
        Ok(config)
    }

    pub(super) fn set_peer_authentication(&mut self, mode: PeerAuthentication) {
        self.strict = mode == PeerAuthentication::Strict;
    }

    pub(super) fn set_istio_filters(&mut self, on: bool) {
        self.istio_filters = on;
    }

    pub(super) fn set_endpoints(&mut self, endpoints: Endpoints) {
        self.endpoints = endpoints;
    }

    pub(super) fn set_misconfiguration(&mut self, misconfiguration: Option<Misconfiguration>) {
        self.misconfiguration = misconfiguration;
    }

    pub(super) fn set_added(&mut self, type_url: &str, resources: BTreeMap<String, Bytes>) {
        self.added.insert(type_url.to_owned(), resources);
    }

    pub(super) fn types(&self) -> &[String] {
        &self.types
    }

    /// The resources of a type, by name.
    pub(super) fn resources(&self, type_url: &str) -> BTreeMap<String, Any> {
        let recorded = self.recorded.get(type_url).into_iter().flatten();
        recorded
            .chain(self.added.get(type_url).into_iter().flatten())
            .map(|(name, value)| {
                let value = match (type_url, &**name) {
                    (LISTENER, _) => self.listener(name, value),
                    (ENDPOINT, CATALOG) => with_endpoints(value, &self.endpoints),
                    _ => value.clone(),
                };
                let value = match self.misconfiguration {
                    Some(misconfiguration) => misconfiguration.applied(type_url, name, value),
                    None => value,
                };
                let type_url = type_url.to_owned();
                (name.clone(), Any { type_url, value })
            })
            .collect()
    }

    fn listener(&self, name: &str, recorded: &Bytes) -> Bytes {
        let edited = match name {
            "virtualInbound" if self.strict => without_plaintext(recorded),
            "0.0.0.0_9555" if self.istio_filters => with_an_istio_filter(recorded),
            _ => return recorded.clone(),
        };
        edited.map_or_else(|_| recorded.clone(), Bytes::from)
    }

    /// The recording's pods were plain; with the metadata that istiod gives to pods of the mesh, the VM calls
    /// cartservice over mTLS.
    fn put_the_pod_into_the_mesh(&mut self) -> Result<()> {
        const CART: &str = "outbound|7070||cartservice.onlineboutique.svc.cluster.local";
        let endpoints = self.recorded.get_mut(ENDPOINT).and_then(|all| all.get_mut(CART));
        let endpoints = endpoints.context("the recording has no endpoints of cartservice")?;
        let tls_mode = Value {
            kind: Some(value::Kind::StringValue("istio".to_owned())),
        };
        let tls_mode = Struct {
            fields: [("tlsMode".to_owned(), tls_mode)].into(),
        };
        let mut message = Message::parse(endpoints)?;
        // ClusterLoadAssignment.endpoints.lb_endpoints.metadata
        message.edit(&[2, 2, 3], &mut |metadata| {
            let mut entry = Message::default();
            entry.prepend(2, tls_mode.encode_to_vec());
            entry.prepend(1, "envoy.transport_socket_match");
            metadata.prepend(1, entry.encode());
            Ok(())
        })?;
        *endpoints = message.encode().into();
        Ok(())
    }

    /// As if the mesh's accessLogFormat, else Istio's own, ended with the caller.
    fn log_callers(&mut self) -> Result<()> {
        // filter_chains.filters.typed_config.value, then HttpConnectionManager.access_log.typed_config.value, then
        // FileAccessLog.log_format.text_format_source.inline_string
        const SOURCE: [u32; 9] = [3, 3, 4, 2, 13, 4, 2, 5, 5];
        const INLINE_STRING: u32 = 3;
        for listener in self
            .recorded
            .get_mut(LISTENER)
            .into_iter()
            .flat_map(BTreeMap::values_mut)
        {
            let mut message = Message::parse(listener)?;
            message.edit(&SOURCE, &mut |source| {
                let format = source.bytes(INLINE_STRING).context("an access log without a format")?;
                let format = String::from_utf8(format.to_vec())?;
                *source = Message::default();
                source.prepend(INLINE_STRING, format.trim_end().to_owned() + CALLER);
                Ok(())
            })?;
            *listener = message.encode().into();
        }
        Ok(())
    }
}

/// A ClusterLoadAssignment of one endpoint, the VM, made one of these.
fn with_endpoints(assignment: &Bytes, endpoints: &Endpoints) -> Bytes {
    const ENDPOINTS: u32 = 2;
    const LB_ENDPOINTS: u32 = 2;
    const METADATA: u32 = 3;
    const ADDRESS: u32 = 2;
    let edited = || {
        let mut assignment = Message::parse(assignment)?;
        assignment.edit(&[ENDPOINTS], &mut |locality| {
            let vm = locality
                .bytes(LB_ENDPOINTS)
                .context("the recording has no endpoint of the VM")?
                .to_vec();
            locality.0.retain(|(field, _)| *field != LB_ENDPOINTS);
            for (address, in_mesh) in endpoints {
                let mut endpoint = Message::parse(&vm)?;
                // LbEndpoint.endpoint.address.socket_address
                endpoint.edit(&[1, 1, 1], &mut |socket| {
                    socket.0.retain(|(field, _)| *field != ADDRESS);
                    socket.prepend(ADDRESS, address.clone());
                    Ok(())
                })?;
                endpoint.0.retain(|(field, _)| *field != METADATA || *in_mesh);
                locality.0.push((LB_ENDPOINTS, Field::Bytes(endpoint.encode())));
            }
            Ok(())
        })?;
        anyhow::Ok(assignment.encode().into())
    };
    edited().unwrap_or_else(|_| assignment.clone())
}

/// A listener as istiod makes it for a STRICT PeerAuthentication: only filter chains with a transport socket are left,
/// and the one that keeps callers from 15006 itself.
fn without_plaintext(listener: &[u8]) -> Result<Vec<u8>> {
    const FILTER_CHAINS: u32 = 3;
    const TRANSPORT_SOCKET: u32 = 6;
    const NAME: u32 = 7;
    let mut listener = Message::parse(listener)?;
    listener.0.retain(|(field, value)| {
        let Field::Bytes(chain) = value else {
            return true;
        };
        *field != FILTER_CHAINS
            || Message::parse(chain).is_ok_and(|chain| {
                chain.bytes(TRANSPORT_SOCKET).is_some() || chain.bytes(NAME) == Some(b"virtualInbound-blackhole")
            })
    });
    Ok(listener.encode())
}

/// Puts `istio.metadata_exchange` before all HTTP filters, as istiod does by default.
fn with_an_istio_filter(listener: &[u8]) -> Result<Vec<u8>> {
    let config = Any {
        type_url: "type.googleapis.com/io.istio.http.peer_metadata.Config".to_owned(),
        value: Bytes::new(),
    };
    let mut filter = Message::default();
    filter.prepend(4, config.encode_to_vec());
    filter.prepend(1, "istio.metadata_exchange");
    let mut listener = Message::parse(listener)?;
    // filter_chains.filters.typed_config.value, then HttpConnectionManager.http_filters
    listener.edit(&[3, 3, 4, 2], &mut |manager| {
        manager.prepend(5, filter.encode());
        Ok(())
    })?;
    Ok(listener.encode())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_keeps_the_mtls_chains_only() {
        let chains = |config: &Config| {
            let listener = config.resources(LISTENER).remove("virtualInbound").unwrap();
            let listener = Message::parse(&listener.value).unwrap();
            listener.0.iter().filter(|(field, _)| *field == 3).count()
        };
        let mut config = Config::recorded().unwrap();
        assert_eq!(chains(&config), 8);
        config.set_peer_authentication(PeerAuthentication::Strict);
        assert_eq!(chains(&config), 4);
    }

    #[test]
    fn messages_survive_being_taken_apart() {
        let config = Config::recorded().unwrap();
        for (name, resource) in config.types().iter().flat_map(|url| config.resources(url)) {
            let message = Message::parse(&resource.value).unwrap();
            assert_eq!(message.encode(), resource.value, "{name}");
        }
    }
}
