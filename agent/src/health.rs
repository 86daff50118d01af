//! Whether the application is well, whether the VM serves the mesh, and who is told.
//!
//! `run` probes the application and publishes `ProbeState`. `judge` folds all facts into the one `Health`, which
//! 15020, `status` and systemd (`notify`) all say. Never repairs anything.

mod probe;

pub use probe::run;
