//! Whether the application is well, whether the VM serves the mesh, and who is told.
//!
//! `ProbePart` probes the application and publishes `ProbeState`. `aggregate` folds the problems of all parts into the
//! one `Health` that 15020, `status` and, by `notify`, systemd all say. Never repairs anything.

mod aggregate;
mod metrics;
mod notify;
mod part;
mod probe;

pub use aggregate::aggregate;
pub use notify::notify;
pub use part::ProbePart;
