//! Envoy: its bootstrap, its process, its end. Publishes `EnvoyState`.
//!
//! ```text
//! part (what it is to all others) → task, offline (with an agent and without)
//!   → lifecycle (which Envoy lives) → source (its program) → state (what is published)
//!   → process (those that run, and how one starts) → options → bootstrap, admin
//! ```
//!
//! Envoy outlives the agent, and the next agent adopts it. Nothing here kills a process that is not an Envoy of this
//! run directory (`process::ledger`).

mod admin;
mod bootstrap;
mod build_name;
mod container_eds;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lifecycle;
mod metrics;
mod offline;
mod options;
mod part;
mod process;
mod source;
mod state;
mod task;
mod version;
pub mod view;

pub use admin::{Admin, Readiness};
pub use bootstrap::{BootstrapOptions, ISTIO_VERSION, PublishedPort, bootstrap};
pub use lifecycle::{drain, drain_grace};
pub use offline::{running, stop_recorded};
pub use options::{Options, Outputs};
pub use part::{DrainPart, EnvoyPart};
pub use process::{become_envoy, command_line};
pub(crate) use source::fetch;
pub use source::{Build, Located, build, earlier, is_fetchable, locate, pinned, version};
pub use task::run;
