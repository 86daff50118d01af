//! One Envoy after another: adopted or started, watched, replaced, emptied of its callers and ended.

mod drain;
mod handover;
mod readiness;
mod restarts;
mod supervisor;
mod wanted;

pub use drain::{drain, drain_grace};
pub(super) use supervisor::EnvoySupervisor;
pub(super) use wanted::WantedSpec;
