//! Istio's own agent on this VM, as the package istio-sidecar installs it: whether it is there and active, what it
//! was told, and what of it goes when this agent takes its place.
//!
//! Publishes nothing. Never touches netfilter (`intercept` knows the chains), and never a service.

mod backup;
mod files;
mod flags;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hosts_lines;
mod import;
mod keys;
mod presence;
mod settings;
mod user;

pub use backup::{Before, before, finished, is_interrupted, put_back, remember, remove_backup, take_away};
pub use files::{CLUSTER_ENV, SIDECAR_ENV, read};
pub use import::{Bundle, Certificate, Import, import};
pub use presence::{Sidecar, UNIT, expect_inactive, find};
pub use settings::{Note, Settings, Tproxy};
pub use user::{USER, entry, ids};
