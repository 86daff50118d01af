//! The vocabulary: typed values that flow between features in `watch` channels.
//!
//! Each fact has one publisher, named beside it. Features never call each other; they read facts,
//! and `app` connects the channels. Nothing here does I/O, reads a clock or logs.

mod by_workload;
mod control_planes;
mod counts;
mod credentials;
mod date;
mod departure;
pub(crate) mod duration;
#[cfg(test)]
pub(crate) mod fixtures;
mod host_bridge;
mod host_event;
mod host_name;
mod host_port;
mod host_state;
mod image_name;
pub(crate) mod kubernetes_name;
mod membership;
mod name_table;
pub(crate) mod number;
pub(crate) mod outbound;
mod probe;
mod secret;
mod startup;
mod state;
mod upgrade;

pub use by_workload::{ByWorkload, named};
pub use control_planes::{ControlPlane, ControlPlaneHealth, ControlPlanes};
pub use counts::{
    Counts, DnsCounts, EnvoyCounts, LastProbe, MissingMetrics, ProbeCounts, RulePackets, ScrapeCounts, SourceCounts,
    XdsCounts,
};
pub use credentials::{Credentials, IdentityProblem, IssuedWith, PrivateKey, SpiffeId};
pub use date::{date, date_with_micros};
pub use departure::{Departure, Eviction};
pub use host_bridge::HostBridge;
pub use host_event::{Documented, HostEvent};
pub(crate) use host_name::{is_host_name, is_of_a_machine};
pub use host_port::{HostPort, NotHostPort};
pub use host_state::HostState;
pub(crate) use image_name::{is_digest, is_image};
pub use membership::{HostEntry, Membership, ProxyConfig};
pub use name_table::{NameInfo, NameTable};
pub use outbound::OutboundCapture;
pub use probe::{Probe, ProbeKind, Scheme};
pub use secret::Secret;
pub use startup::{Order, Startup};
pub use state::{
    ContainerState, EnvoyState, Health, InterceptState, LivenessState, Nack, ProbeState, ServiceState, SnapshotUse,
    Successor, XdsState,
};
pub use upgrade::{Upgrade, UpgradeState};
