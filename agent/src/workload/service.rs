//! The application as a systemd service of the operator's: started once the mesh is ready, kept going, stopped with the
//! mesh.
//!
//! Publishes `ServiceState`. The unit is the operator's, and so is all that it says, its own `Restart=` included: what
//! systemd starts again by itself the agent leaves to it. A new agent takes over a service that runs without a touch.

mod check;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod metrics;
mod part;
mod supervisor;
mod unit;

pub use part::ServicePart;

#[cfg(test)]
mod tests;
