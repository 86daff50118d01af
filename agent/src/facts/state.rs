//! States of the parts. `status` prints all of them, so all are `Serialize`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// State of both xDS streams, Envoy's and istiod's. Published by `xds`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct XdsState {
    /// `host:port (ip)` of the istiod that answers; `None` while none does.
    pub connected_to: Option<String>,
    /// The time since which an istiod answers, or none does.
    #[serde(with = "humantime_serde")]
    pub since: Option<SystemTime>,
    /// The last failure to connect, or the end of the last stream.
    pub last_error: Option<String>,
    /// True while Envoy's own stream is open.
    pub envoy_connected: bool,
    /// Responses that Envoy refused and has not accepted since, at most one per type.
    pub nacks: Vec<Nack>,
    /// Hosts in the name table; `None` before the first one.
    pub names: Option<usize>,
    /// True while an agent that takes over has not heard of istiod, for a second at most.
    #[serde(skip)]
    pub takes_over: bool,
    /// The last response of istiod's, to a second or so.
    #[serde(default, with = "humantime_serde")]
    pub last_push: Option<SystemTime>,
    /// The snapshot, while Envoy is served from it because no istiod answers.
    #[serde(default)]
    pub snapshot: Option<SnapshotUse>,
    /// Reason why there is no snapshot of what Envoy has, for a start without istiod.
    #[serde(default)]
    pub snapshot_problem: Option<String>,
    /// Envoy's clusters in whose endpoints this VM is, as istiod told Envoy last.
    #[serde(default)]
    pub listed_in: BTreeSet<String>,
    /// True once istiod has told Envoy any endpoints on a stream of this agent: before, `listed_in` means nothing.
    #[serde(skip)]
    pub endpoints_heard: bool,
    /// True once Envoy has accepted listeners of this agent's.
    #[serde(skip)]
    pub has_listeners: bool,
}

/// The use of what Envoy accepted last in place of an istiod.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct SnapshotUse {
    /// Time since which Envoy is served from it.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
    /// Time at which it was written.
    #[serde(with = "humantime_serde")]
    pub written: SystemTime,
    /// End of the certificate, after which no call works.
    #[serde(with = "humantime_serde")]
    pub until: Option<SystemTime>,
}

/// A configuration that Envoy refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Nack {
    /// Short type: `Listener`, `Cluster`, …
    pub kind: String,
    /// Envoy's words; they name the resource.
    pub message: String,
    /// Time of the refusal.
    #[serde(with = "humantime_serde")]
    pub at: SystemTime,
}

/// Published by `envoy`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum EnvoyState {
    /// Not started yet.
    #[default]
    Waiting,
    /// Not started yet: its program is not here.
    Fetching {
        /// From where, or why it failed and when it is tried again.
        progress: String,
    },
    /// Runs, and is not known to serve: it has no configuration yet, or no agent asks it.
    Starting {
        /// Process id.
        pid: u32,
        /// Why the Envoy before it ended, when none has served since.
        #[serde(default)]
        ended: Option<String>,
    },
    /// LIVE, with listeners and clusters.
    Ready {
        /// Process id.
        pid: u32,
        /// True for an Envoy that an earlier agent started.
        adopted: bool,
        /// Restarts by this agent.
        restarts: u32,
        /// The one that is to take over from it.
        #[serde(default)]
        successor: Option<Successor>,
    },
    /// Dead. The next start comes by itself, at the slowest pace while `envoy.restart_budget` is spent.
    Down {
        /// Exit status or signal of the last Envoy.
        reason: String,
    },
    /// Answers, and is being emptied of connections.
    Draining {
        /// Process id.
        pid: u32,
    },
}

impl EnvoyState {
    /// True while Envoy serves.
    pub fn is_ready(&self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// The Envoy that is to take over from the one that serves.
    pub fn successor(&self) -> Option<&Successor> {
        match self {
            Self::Ready { successor, .. } => successor.as_ref(),
            _ => None,
        }
    }
}

impl ContainerState {
    /// True while callers are to go elsewhere, because the container is about to end.
    pub fn is_leaving(&self) -> bool {
        matches!(self, Self::Leaving { .. })
    }

    /// The container that is to take over from the one that runs.
    pub fn successor(&self) -> Option<&Successor> {
        match self {
            Self::Running { successor, .. } => successor.as_ref(),
            _ => None,
        }
    }
}

/// An Envoy, or a container, that is to take over from the one that serves, and is not ready.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Successor {
    /// Since when one is wanted.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
    /// Failure of the last try; `None` while none has failed.
    pub failed: Option<String>,
    /// Cause for which the one that runs is not ready; `None` while it is not known, or none runs.
    pub lacks: Option<String>,
}

impl Successor {
    /// The cause for which it is not ready, as far as that is known.
    pub fn cause(&self) -> String {
        match (&self.failed, &self.lacks) {
            (None, None) => "it has said nothing yet".to_owned(),
            (Some(cause), None) | (None, Some(cause)) => cause.clone(),
            (Some(failed), Some(lacks)) => format!("{failed}; the next one: {lacks}"),
        }
    }
}

/// Published by `intercept`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum InterceptState {
    /// No rules of ours are in.
    #[default]
    Absent,
    /// In.
    Active {
        /// `nftables` or `iptables`.
        backend: String,
        /// Number of rules.
        rules: usize,
        /// Why the application is open to other containers on its bridge; absent: it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        open_bridge: Option<String>,
    },
    /// Taken out because Envoy is down and the operator chose `open`.
    Open {
        /// Why.
        reason: String,
    },
    /// Could not be put in.
    Failed {
        /// Why, and what to do.
        error: String,
    },
}

/// Published by `workload`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ContainerState {
    /// No container is configured.
    #[default]
    NotConfigured,
    /// Not started yet: pulling, or Envoy is not ready.
    Waiting {
        /// The thing that is waited for.
        reason: String,
    },
    /// Runs.
    Running {
        /// Container id, 12 characters.
        id: String,
        /// Restarts by this agent.
        restarts: u32,
        /// True for a container that an earlier version of the agent made, with more rights than one gets that is made
        /// now.
        #[serde(default)]
        outdated: bool,
        /// On Docker's bridge.
        #[serde(default)]
        address: Option<IpAddr>,
        /// The one that is to take over from it.
        #[serde(default)]
        successor: Option<Successor>,
        /// Reason for which it serves nobody although it runs.
        #[serde(default)]
        trouble: Option<String>,
        /// The TCP ports that its image says it listens on.
        #[serde(default)]
        exposed: Vec<u16>,
        /// State by the HEALTHCHECK of its image.
        #[serde(default)]
        healthcheck: ProbeState,
    },
    /// Serves until callers have gone elsewhere, and is replaced then by one that can't run beside it.
    Leaving {
        /// Container id, 12 characters.
        id: String,
    },
    /// Can't run; tried again with backoff.
    Failed {
        /// Why, and what to do.
        error: String,
        /// True where Docker says that it doesn't run, so that its address may be another container's.
        #[serde(skip)]
        gone: bool,
    },
}

/// Published by `workload`: the application as a systemd service.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ServiceState {
    /// No service is configured.
    #[default]
    NotConfigured,
    /// Not started yet, or systemd is at work on it.
    Waiting {
        /// The thing that is waited for.
        reason: String,
    },
    /// Runs.
    Running {
        /// Name of the unit.
        unit: String,
        /// Main process of the service; 0 for none.
        pid: u32,
        /// Restarts by this agent, not by systemd.
        restarts: u32,
    },
    /// Doesn't run; tried again with backoff.
    Failed {
        /// Why, and what to do.
        error: String,
    },
}

/// Published by `health`: the application, by its probe.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ProbeState {
    /// No probe is configured.
    #[default]
    NotConfigured,
    /// No threshold reached yet.
    Unknown,
    /// Healthy.
    Healthy,
    /// Unhealthy.
    Unhealthy {
        /// The last probe's failure.
        reason: String,
    },
}

/// Published by `health`: the application's life, by its startup probe and its liveness probe.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum LivenessState {
    /// Neither probe is configured.
    #[default]
    NotConfigured,
    /// The startup probe has not succeeded since the application was started last: it is not to be judged yet.
    Starting,
    /// Nothing says that it is dead.
    Alive,
    /// A probe failed for good: it is to be started again. Published anew for each time.
    Failed {
        /// The application, and the last probe's failure.
        reason: String,
    },
}

/// The one verdict: READY=1, 15020 and `status` all say this.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Health {
    /// True while the VM serves the mesh.
    pub ready: bool,
    /// Problems, the cause first; empty when all is well.
    pub problems: Vec<String>,
    /// Codes of the problems, in their order.
    #[serde(default)]
    pub codes: Vec<String>,
    /// The first thing to do about the cause.
    #[serde(default)]
    pub remedy: Option<String>,
}
