//! Every fact's channel. Each has one publisher, named in `facts`.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bounds::Refusals;
use crate::config::{Config, WorkloadConfig};
use crate::control_plane::ControlPlaneSelector;
use crate::facts::{
    ByWorkload, ContainerState, Counts, Credentials, Departure, EnvoyState, Eviction, Health, HostState,
    IdentityProblem, InterceptState, LivenessState, Membership, MissingMetrics, NameTable, Order, ProbeState,
    RulePackets, ServiceState, Startup, Upgrade, XdsState,
};
use crate::supervise::Clock;

/// The channels that are there before it is known who this VM is.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// The one verdict.
    pub health: watch::Sender<Health>,
    /// Reason why the membership may be old.
    pub join_problem: watch::Sender<Option<String>>,
    /// Counts of what was turned away because a bound was reached.
    pub refusals: Refusals,
    /// Reason why a configuration was refused, and the one before it serves.
    pub reload_problem: watch::Sender<Option<String>>,
}

/// The channels of all parts.
#[derive(Clone, Debug)]
pub struct Channels {
    /// Identity, address and ports of this VM.
    pub membership: watch::Sender<Arc<Membership>>,
    /// The istiod in use.
    pub selector: ControlPlaneSelector,
    /// Key and certificate.
    pub credentials: watch::Sender<Option<Arc<Credentials>>>,
    /// Reason why there is no new certificate while one is due.
    pub identity_problem: watch::Sender<Option<IdentityProblem>>,
    /// Reason why the membership may be old.
    pub join_problem: watch::Sender<Option<String>>,
    /// Reason why istiod's names are not in /etc/hosts.
    pub hosts_problem: watch::Sender<Option<String>>,
    /// The machine's network and clock.
    pub host: watch::Sender<HostState>,
    /// The notice by which the cloud takes this VM away.
    pub eviction: watch::Sender<Option<Eviction>>,
    /// The mesh's names.
    pub names: watch::Sender<Option<Arc<NameTable>>>,
    /// Reason why containers are not answered.
    pub dns_problem: watch::Sender<Option<String>>,
    /// The stream to istiod, and Envoy's.
    pub xds: watch::Sender<XdsState>,
    /// The VM's way out of the mesh.
    pub departure: watch::Sender<Departure>,
    /// True once a stop is to wait for nobody any more.
    pub hastened: watch::Sender<bool>,
    /// The proxy.
    pub envoy: watch::Sender<EnvoyState>,
    /// Reason why the Envoy that serves is not the configured one.
    pub envoy_problem: watch::Sender<Option<String>>,
    /// Version of the Envoy that serves.
    pub envoy_version: watch::Sender<Option<String>>,
    /// Reason why a configuration was refused, and the one before it serves.
    pub reload_problem: watch::Sender<Option<String>>,
    /// The upgrade of the package that is on trial, or was taken back.
    pub upgrade: watch::Sender<Option<Upgrade>>,
    /// The rules.
    pub intercept: watch::Sender<InterceptState>,
    /// Ports that another program's firewall closes, and how it is opened.
    pub firewall: watch::Sender<Option<String>>,
    /// Packets that met the rules, as of the last page of metrics.
    pub rule_packets: watch::Sender<Vec<RulePackets>>,
    /// The applications, in the order of the configuration.
    pub workloads: Arc<[WorkloadChannels]>,
    /// Health of the applications together: all have to be healthy.
    pub probe: watch::Sender<ProbeState>,
    /// The one verdict.
    pub health: watch::Sender<Health>,
    /// Counts of what was turned away because a bound was reached.
    pub refusals: Refusals,
    /// Counts of what happened since the agent started, each by its one publisher.
    pub counts: Counts,
    /// Sources that the last page of metrics lacked.
    pub missing_metrics: watch::Sender<Option<MissingMetrics>>,
    /// Durations of the start.
    pub startup: watch::Sender<Startup>,
    /// The order to end that root gave on port 15020.
    pub order: watch::Sender<Option<Order>>,
}

/// The channels of one application.
#[derive(Clone, Debug)]
pub struct WorkloadChannels {
    /// The name by which it is told from the others.
    pub name: String,
    /// The application's container.
    pub container: watch::Sender<ContainerState>,
    /// The address at which Envoy calls that container; `None` before Envoy has said so.
    pub called_at: watch::Sender<Option<IpAddr>>,
    /// The application's systemd service.
    pub service: watch::Sender<ServiceState>,
    /// The application's liveness.
    pub liveness: watch::Sender<LivenessState>,
    /// Health of an application that doesn't count for the VM's: a reload has added it, and it has not been well yet.
    pub pending: watch::Sender<Option<ProbeState>>,
    /// Cancelled when it is to end before the agent does: a reload has it no more.
    pub gone: CancellationToken,
}

impl WorkloadChannels {
    fn new(workload: &WorkloadConfig, config: &Config) -> Self {
        let reason = || "Envoy is not ready".to_owned();
        let container = match &workload.container {
            Some(_) => ContainerState::Waiting { reason: reason() },
            None => ContainerState::NotConfigured,
        };
        let service = match &workload.service {
            Some(_) => ServiceState::Waiting { reason: reason() },
            None => ServiceState::NotConfigured,
        };
        let liveness = match config.life_of(workload) {
            [Some(_), _] => LivenessState::Starting,
            [None, Some(_)] => LivenessState::Alive,
            [None, None] => LivenessState::NotConfigured,
        };
        Self {
            container: watch::Sender::new(container),
            service: watch::Sender::new(service),
            liveness: watch::Sender::new(liveness),
            ..Self::named(&workload.name)
        }
    }

    /// The channels of an application of which nothing is known.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            container: watch::Sender::default(),
            called_at: watch::Sender::default(),
            service: watch::Sender::default(),
            liveness: watch::Sender::default(),
            pending: watch::Sender::default(),
            gone: CancellationToken::new(),
        }
    }
}

impl Channels {
    /// The channels of a VM whose membership is known, before any part runs.
    pub fn new(membership: Membership, config: &Config, shared: Shared) -> Self {
        let workloads = config.workloads.iter();
        let has_own = config.workloads.iter().any(|workload| workload.probe.is_some());
        let probe = match has_own || config.health.probe.is_some() || membership.probe.is_some() {
            true => ProbeState::Unknown,
            false => ProbeState::NotConfigured,
        };
        let mut addresses = config.control_plane.addresses.clone();
        if addresses.is_empty() {
            addresses.push(membership.discovery_address.clone());
        }
        let selector = ControlPlaneSelector::new(addresses, config.control_plane.return_after, Clock::System);
        Self {
            selector,
            membership: watch::Sender::new(Arc::new(membership)),
            credentials: watch::Sender::default(),
            identity_problem: watch::Sender::default(),
            join_problem: shared.join_problem,
            hosts_problem: watch::Sender::default(),
            host: watch::Sender::default(),
            eviction: watch::Sender::default(),
            names: watch::Sender::default(),
            dns_problem: watch::Sender::default(),
            xds: watch::Sender::default(),
            departure: watch::Sender::default(),
            hastened: watch::Sender::default(),
            envoy: watch::Sender::default(),
            envoy_problem: watch::Sender::default(),
            envoy_version: watch::Sender::default(),
            reload_problem: shared.reload_problem,
            upgrade: watch::Sender::default(),
            intercept: watch::Sender::default(),
            firewall: watch::Sender::default(),
            rule_packets: watch::Sender::default(),
            workloads: workloads
                .map(|workload| WorkloadChannels::new(workload, config))
                .collect(),
            probe: watch::Sender::new(probe),
            health: shared.health,
            refusals: shared.refusals,
            counts: Counts::default(),
            missing_metrics: watch::Sender::default(),
            startup: watch::Sender::default(),
            order: watch::Sender::default(),
        }
    }

    /// Values that `read` finds, of each application that has one.
    pub fn by_workload<T: Default>(&self, read: impl Fn(&WorkloadChannels) -> Option<T>) -> ByWorkload<T> {
        match &*self.workloads {
            [only] => ByWorkload::Only(read(only).unwrap_or_default()),
            several => {
                let each = several.iter();
                ByWorkload::Each(each.filter_map(|it| Some((it.name.clone(), read(it)?))).collect())
            }
        }
    }

    /// The name of an application where there are several, by which it is told from the others.
    pub fn name_of<'a>(&self, workload: &'a WorkloadChannels) -> Option<&'a str> {
        (self.workloads.len() > 1).then_some(workload.name.as_str())
    }

    /// True for an application, by its name where there are several, that doesn't count for the VM's health yet.
    pub fn is_pending(&self, name: Option<&str>) -> bool {
        let mut workloads = self.workloads.iter();
        workloads.any(|it| name == Some(it.name.as_str()) && it.pending.borrow().is_some())
    }

    /// The membership of this moment.
    pub fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.membership.borrow())
    }
}
