//! Whether the application is well, whether the VM serves the mesh, and who is told.
//!
//! `run` probes the application and publishes `ProbeState`. `aggregate` folds all facts into the one `Health`
//! that 15020, `status` and, by `notify`, systemd all say. Never repairs anything.

mod aggregate;
mod notify;
mod probe;

pub use aggregate::{Facts, aggregate};
pub use notify::notify;
pub use probe::{Options, run};
