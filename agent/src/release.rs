//! The program's own version.

/// Version of the package.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Commit that it was built from, `-dirty` behind it when there was more; `unknown` where the build could not tell.
pub(crate) const COMMIT: &str = env!("ISTIO_VM_AGENT_COMMIT");
