//! A call to this VM: Envoy's inbound chain, who may call, and the application behind it. Pure.

use std::net::{IpAddr, Ipv4Addr};

use super::call::Call;
use super::cause::Cause;
use super::chain::{Chain, LISTENER};
use super::proxy;
use super::rbac::{self, Request};
use super::route::{self, Routed};
use super::state::{Envoy, State};
use crate::envoy::view::{FilterChain, Listener};
use crate::facts::{ByWorkload, ContainerState, ProbeState};

const MTLS: &str = "mtls";
const APPLICATION: &str = "application";

pub(super) fn explain(state: &State, envoy: &Envoy, peer: Option<IpAddr>, port: u16, chain: &mut Chain) {
    let own_port = state.vm.inbound_listener();
    let Some(listener) = envoy.listeners.iter().find(|it| it.port() == own_port) else {
        chain.fault(
            LISTENER,
            Cause::NoListener,
            format!("Envoy has none on port {own_port}"),
            "`istio-vm-agent status` says whether istiod is reached",
        );
        return;
    };
    let own = chains_of(listener, Some(port));
    let chains = match own.is_empty() {
        false => own,
        true => {
            chain.suspect(
                LISTENER,
                Cause::UnknownPort,
                format!(
                    "istiod knows no port {port} of this workload: Envoy passes calls on without the Service's policies"
                ),
                format!("add targetPort {port} to a Service that selects this WorkloadGroup"),
            );
            chains_of(listener, None)
        }
    };
    if let Some(first) = chains.first() {
        chain.ok(LISTENER, format!("{}, {}", listener.name, name(first)));
    }
    let is_strict = mode(state, envoy, &chains, peer, chain);
    if is_strict != Some(false) {
        proxy::certificate(state, envoy, chain);
    }
    requests(state, envoy, &chains, peer, port, chain);
    let is_by_loopback = peer.is_some_and(|peer| peer.is_loopback());
    application(state, envoy, port, is_by_loopback, chain);
}

/// True where istiod has listeners for this port of the VM.
pub(super) fn knows(state: &State, envoy: &Envoy, port: u16) -> bool {
    let own_port = state.vm.inbound_listener();
    let listener = envoy.listeners.iter().find(|it| it.port() == own_port);
    listener.is_some_and(|listener| !chains_of(listener, Some(port)).is_empty())
}

/// Chains for a port, or for those that no chain names.
fn chains_of(listener: &Listener, port: Option<u16>) -> Vec<&FilterChain> {
    let of_port = |chain: &&FilterChain| chain.filter_chain_match.destination_port == port;
    listener.chains().filter(of_port).collect()
}

fn name(chain: &FilterChain) -> &str {
    match chain.name.as_str() {
        "" => "a chain without a name",
        name => name,
    }
}

/// The mTLS that the chains ask for: `Some(true)` where nothing else is taken, `Some(false)` where there is none.
fn mode(
    state: &State,
    envoy: &Envoy,
    chains: &[&FilterChain],
    peer: Option<IpAddr>,
    chain: &mut Chain,
) -> Option<bool> {
    let is_tls = |chain: &&&FilterChain| chain.transport_socket.as_ref().is_some_and(|socket| socket.is_tls());
    let takes_mtls = chains.iter().any(|chain| is_tls(&chain));
    let takes_plaintext = chains
        .iter()
        .filter(|chain| !is_tls(chain))
        .any(|chain| ["", "raw_buffer"].contains(&chain.filter_chain_match.transport_protocol.as_str()));
    match (takes_mtls, takes_plaintext) {
        (true, true) => {
            chain.ok(MTLS, "PERMISSIVE: mTLS and plaintext are taken");
            None
        }
        (false, _) => {
            chain.note(MTLS, "DISABLE: plaintext alone is taken");
            Some(false)
        }
        (true, false) => {
            strict(state, envoy, peer, chain);
            Some(true)
        }
    }
}

fn strict(state: &State, envoy: &Envoy, peer: Option<IpAddr>, chain: &mut Chain) {
    let question = &state.question;
    let remedy = "put the caller into the mesh, or set the PeerAuthentication of this workload to PERMISSIVE";
    let refused = question
        .error
        .as_ref()
        .is_some_and(|error| error.cause().0 == Cause::StrictPlaintext);
    if question.plaintext || refused {
        let evidence = "STRICT: a caller without mTLS is refused before its first request";
        chain.fault(MTLS, Cause::StrictPlaintext, evidence, remedy);
        return;
    }
    let Some(peer) = peer.filter(|_| question.principal.is_none()) else {
        chain.ok(MTLS, "STRICT: callers without mTLS are refused");
        return;
    };
    let all = envoy.endpoints.iter().flat_map(|assignment| assignment.all());
    let is_peer = |address: &str| address.parse() == Ok(peer);
    let mut known = all.filter(|endpoint| is_peer(endpoint.endpoint.address.host()));
    match known.any(|endpoint| endpoint.takes_mtls()) {
        true => chain.ok(MTLS, format!("STRICT, and {peer} is of the mesh")),
        false => chain.suspect(
            MTLS,
            Cause::StrictPlaintext,
            format!("STRICT, and {peer} is no endpoint of the mesh that Envoy knows: without mTLS it is refused"),
            remedy,
        ),
    }
}

/// Policies and routes of the chain that the caller gets.
fn requests(state: &State, envoy: &Envoy, chains: &[&FilterChain], peer: Option<IpAddr>, port: u16, chain: &mut Chain) {
    let question = &state.question;
    let wants_tls = !question.plaintext;
    let has_tls = |chain: &&&FilterChain| chain.transport_socket.is_some() == wants_tls;
    let Some(filters) = chains.iter().find(has_tls).or_else(|| chains.first()) else {
        return;
    };
    let path = question.path.as_deref();
    let request = Request {
        port,
        path,
        peer,
        principal: question.principal.as_deref(),
        plaintext: question.plaintext,
    };
    rbac::explain(filters, &request, chain);
    if filters.terminal().is_some_and(|filter| filter.is_http()) {
        let address = state
            .vm
            .addresses
            .first()
            .copied()
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let host = address.to_string();
        let call = Call {
            host: &host,
            address,
            port,
            path,
            headers: &question.headers,
            service: None,
        };
        if let Some(Routed::To(clusters)) = route::explain(state, envoy, filters, &call, chain) {
            let unknown = clusters
                .iter()
                .find(|it| envoy.clusters.iter().all(|known| known.name != it.name));
            if let Some(cluster) = unknown {
                let remedy = "`istio-vm-agent proxy clusters --direction inbound` shows those it has";
                chain.fault(
                    "cluster",
                    Cause::NoCluster,
                    format!("{} is not there", cluster.name),
                    remedy,
                );
            }
        }
    }
}

/// Why a container serves nobody.
fn down(container: &ContainerState) -> Option<String> {
    match container {
        ContainerState::Failed { error, .. } => Some(format!("the container can't run: {error}")),
        ContainerState::Waiting { reason } => Some(format!("the container is not started yet: {reason}")),
        ContainerState::Running {
            trouble: Some(trouble), ..
        } => Some(format!("the container runs and serves nobody: {trouble}")),
        ContainerState::NotConfigured | ContainerState::Running { .. } | ContainerState::Leaving { .. } => None,
    }
}

fn application(state: &State, envoy: &Envoy, port: u16, is_by_loopback: bool, chain: &mut Chain) {
    served(state, port, is_by_loopback, chain);
    match &state.agent.probe {
        ProbeState::Unhealthy { reason } => chain.fault(
            "probe",
            Cause::ProbeFailing,
            format!("the application fails its probe, so istiod has taken this VM out: {reason}"),
            "mend the application, or its probe in the WorkloadGroup",
        ),
        ProbeState::Healthy => chain.ok("probe", "healthy"),
        ProbeState::NotConfigured | ProbeState::Unknown => {}
    }
    listed(state, envoy, port, chain);
}

/// The step that says whether the application has the port.
pub(super) fn served(state: &State, port: u16, is_by_loopback: bool, chain: &mut Chain) {
    let container = match (state.vm.published.get(&port), &state.agent.container) {
        (Some(name), containers) => containers.of(name),
        (None, ByWorkload::Only(container)) => Some(container),
        (None, ByWorkload::Each(_)) => None,
    };
    if let Some(evidence) = container.and_then(down) {
        let remedy = "`istio-vm-agent check` and `docker logs` of the container say why";
        chain.fault(APPLICATION, Cause::ContainerDown, evidence, remedy);
    } else if state.vm.published.contains_key(&port) {
        chain.ok(APPLICATION, "the container runs and has this port");
    } else {
        listening(state, port, is_by_loopback, chain);
    }
}

/// Envoy calls the application at the address of this VM that the caller meant, which is loopback's where `is_by_loopback`.
pub(super) fn listening(state: &State, port: u16, is_by_loopback: bool, chain: &mut Chain) {
    let on: Vec<IpAddr> = state
        .listening
        .iter()
        .filter(|it| it.port() == port)
        .map(|it| it.ip())
        .collect();
    if on.is_empty() {
        chain.fault(
            APPLICATION,
            Cause::NotListening,
            format!("no program on this VM listens on port {port}: Envoy answers 503 (UF)"),
            format!("start the application, or have it listen on {port} (`ss -ltn`)"),
        );
    } else if !is_by_loopback && on.iter().all(|ip| ip.is_loopback()) {
        chain.fault(
            APPLICATION,
            Cause::LoopbackOnly,
            format!(
                "it listens on {} alone, and Envoy calls it at this VM's own address",
                on[0]
            ),
            "have it listen on all addresses, or on this VM's",
        );
    } else {
        chain.ok(APPLICATION, format!("listens on port {port}"));
    }
}

/// The step that says whether istiod gives this VM to callers.
fn listed(state: &State, envoy: &Envoy, port: u16, chain: &mut Chain) {
    let xds = &state.agent.xds;
    let of_vm = envoy.endpoints.iter().filter(|assignment| {
        assignment.cluster_name.starts_with("outbound|")
            && assignment.all().any(|endpoint| {
                let at = &endpoint.endpoint.address;
                let is_here = at.host().parse().is_ok_and(|ip| state.vm.addresses.contains(&ip));
                is_here && at.socket_address.port_value == port
            })
    });
    let names: Vec<&str> = of_vm.map(|assignment| assignment.cluster_name.as_str()).collect();
    if let Some(first) = names.first() {
        chain.ok("endpoints", format!("istiod has this VM in {first}"));
    } else if state.agent.silent.is_none() && xds.connected_to.is_some() {
        chain.suspect(
            "endpoints",
            Cause::NotListed,
            "istiod has this VM in no endpoints that Envoy is told of: nobody calls it by the Service",
            "do the labels of the WorkloadGroup fit the Service's selector, and is the WorkloadEntry healthy (`kubectl get \
             workloadentries`)?",
        );
    }
}
