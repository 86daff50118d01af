//! All that is known of this VM when a question is answered.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::connection::Connection;
use super::question::Question;
use crate::config::ports;
use crate::envoy::view::{Assignment, Cluster, ClusterStatus, Listener, RouteConfiguration, Secret};
use crate::facts::{ByWorkload, ContainerState, EnvoyState, InterceptState, NameTable, ProbeState, XdsState};
use crate::intercept::Rules;

/// The state of this VM, of which the explanation is made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct State {
    #[serde(with = "humantime_serde")]
    pub(super) now: SystemTime,
    pub(super) question: Question,
    pub(super) agent: Agent,
    pub(super) vm: Vm,
    pub(super) resolver: Resolver,
    /// The rules, with the ways of queries to each name server and then that of the call; or why they are not known.
    pub(super) rules: Result<Rules, String>,
    /// Entry of conntrack for the connection, where the question is about one; or why that is not known.
    pub(super) connection: Option<Result<Option<Connection>, String>>,
    /// Envoy's state, or why Envoy doesn't tell.
    pub(super) envoy: Result<Envoy, String>,
    /// Addresses that programs on this VM listen on, by TCP.
    pub(super) listening: Vec<SocketAddr>,
    /// Ports of the mesh that a firewall of this VM keeps closed, and the commands that open them; or why it isn't known.
    pub(super) closed: Result<(Vec<u16>, Vec<String>), String>,
    /// Endpoints that no call has come through to and that the kernel sends to a bridge of this VM, each with the bridge.
    #[serde(default)]
    pub(super) bridged: BTreeMap<IpAddr, String>,
}

/// The agent, as `status` tells of it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Agent {
    /// Why no agent answers.
    pub(super) silent: Option<String>,
    pub(super) xds: XdsState,
    pub(super) envoy: EnvoyState,
    pub(super) interception: InterceptState,
    pub(super) container: ByWorkload<ContainerState>,
    pub(super) probe: ProbeState,
}

/// The VM, as the configuration and the membership have it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Vm {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) namespace: String,
    /// Where inbound calls are captured; `None`: on every port.
    pub(super) inbound_ports: Option<Vec<u16>>,
    /// The port of Envoy that they are sent to, which a mesh can move; `None`: Istio's.
    pub(super) inbound_listener: Option<u16>,
    /// Ports that containers publish on this VM, each with the name of its application.
    pub(super) published: BTreeMap<u16, String>,
}

impl Vm {
    /// The port of Envoy that calls in are sent to.
    pub(super) fn inbound_listener(&self) -> u16 {
        self.inbound_listener.unwrap_or(ports::INBOUND)
    }
}

/// Resolver of a program on this VM.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Resolver {
    /// Addresses of the name in /etc/hosts.
    pub(super) hosts: Vec<IpAddr>,
    /// True where programs ask systemd-resolved past DNS.
    pub(super) past_dns: bool,
    /// resolv.conf's.
    pub(super) servers: Vec<IpAddr>,
    /// resolv.conf's.
    pub(super) search: Vec<String>,
    /// True where the agent is to answer DNS.
    pub(super) captured: bool,
    /// True where somebody listens on the agent's port for DNS.
    pub(super) served: bool,
    /// The mesh's names; `None` before the first ones came.
    pub(super) table: Option<NameTable>,
}

/// Envoy's own account of itself.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Envoy {
    pub(super) listeners: Vec<Listener>,
    pub(super) routes: Vec<RouteConfiguration>,
    pub(super) clusters: Vec<Cluster>,
    pub(super) endpoints: Vec<Assignment>,
    pub(super) statuses: Vec<ClusterStatus>,
    pub(super) secrets: Vec<Secret>,
    /// Resources whose update it refused, and why.
    pub(super) refused: Vec<(String, String)>,
}
