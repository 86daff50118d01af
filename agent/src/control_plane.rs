//! The way to istiod: which one, name resolution, TLS, and the authentication of a call. Used by `identity` and `xds`.
//!
//! The VM's resolver is the last resort: the bundle's `hosts` entries come first, so that a broken /etc/hosts
//! or a captured DNS never cuts the VM off its control plane. Always over TLS: a token never travels in the clear.

mod auth;
mod checks;
mod connect;
mod failure;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod liveness;
mod presented;
mod selector;
pub mod token;
mod version;

pub use auth::{AuthMethod, authorize};
pub use checks::{Inputs, check};
pub use connect::{Connection, connect, listed_addresses};
pub use failure::{Unresolved, certificate_refused, is_untimely};
pub use selector::{ControlPlaneSelector, FAILOVER_TIMEOUT};
pub use version::version;

#[cfg(test)]
mod tests;
