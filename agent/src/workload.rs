//! The application: a container, or a systemd service ([`ServicePart`]).
//!
//! The container is there, of the right specification, running, through Docker's Engine API.
//!
//! Publishes `ContainerState`. A container is the agent's by labels that its image has not, and as configured by the
//! hash in one of them. Nothing else is remembered, so a new agent takes over a running container without a touch, also
//! when one that is made now would be allowed less: that comes with its next start. Never touches a container that
//! isn't the agent's, and never ends the agent: a failure is published and tried again.

mod check;
mod dead;
mod draining;
mod ended;
mod engine;
mod env_file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gate;
mod metrics;
mod names;
mod offline;
mod options;
mod others;
mod part;
mod ports;
mod secrets;
mod service;
mod spec;
mod supervisor;
mod user;
mod wanted;
mod well;

pub use offline::{plan, remove};
pub use options::Options;
pub use others::Others;
pub use part::ContainerPart;
pub use service::ServicePart;
pub use supervisor::{Inputs, run};
pub use well::Judge;

#[cfg(test)]
mod tests;
