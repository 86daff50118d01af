//! The container that is to run.

use std::path::PathBuf;

use crate::config::ContainerConfig;

/// The container that is to run, all files read.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// The configuration, with the variables of its files.
    pub(super) config: ContainerConfig,
    /// Directory on the VM that is mounted for the secrets; `None` without any.
    pub(super) secrets: Option<PathBuf>,
    /// True when Docker publishes its ports.
    pub(super) publishes: bool,
}
