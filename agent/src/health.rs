//! Health of the application and of the VM in the mesh, and who is told of it.
//!
//! `LivenessPart` asks whether the application lives and publishes `LivenessState`; `ProbePart` asks whether it is well,
//! by a probe or by its container's HEALTHCHECK, and publishes `ProbeState`. `aggregate` folds the problems of all parts into the
//! one `Health` that 15020, `status` and, by `notify`, systemd all say. Never repairs anything.

mod aggregate;
mod counted;
mod healthcheck;
mod liveness;
mod liveness_part;
mod metrics;
mod notify;
mod part;
mod probe;
mod together;

pub use aggregate::aggregate;
pub use liveness_part::LivenessPart;
pub use notify::notify;
pub use part::ProbePart;
