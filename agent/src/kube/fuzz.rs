//! Properties of the ways to an API server, whatever the texts.

use std::path::Path;

use super::{exec, kubeconfig as kubeconfigs};
use crate::host::{Host, System};

/// kubectl's configuration file.
pub(crate) fn kubeconfig(text: &str) {
    let host = Host::new("/nonexistent", System);
    if let Ok(access) = kubeconfigs::parse(text, Path::new("/k/config"), None, &host) {
        assert!(access.server.starts_with("https://"));
    }
}

/// The output of a credential plugin.
pub(crate) fn credential(text: &str) {
    if let Ok((bearer, _)) = exec::parse(text) {
        assert!(bearer.expose().bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
