//! Back to how it was before a switch, however far that got.

use std::time::SystemTime;

use anyhow::Result;

use super::{OURS, account, steps, systemctl};
use crate::config::PathsConfig;
use crate::host::Host;
use crate::{identity, sidecar};

pub(super) struct Back<'a> {
    pub(super) host: &'a Host,
    pub(super) paths: &'a PathsConfig,
    /// True when Istio's own agent is to run afterwards.
    pub(super) start: bool,
}

impl Back<'_> {
    /// Nothing to do where nothing was written down. Can be done again, when it was interrupted; `revert` takes out
    /// what this agent put into the host.
    pub(super) fn make(&self, revert: impl FnOnce() -> Result<()>) -> Result<()> {
        let Self { host, paths, start } = *self;
        let store = paths.sidecar_backup();
        let Some(before) = sidecar::before(host, &store)? else {
            return Ok(());
        };
        systemctl(host, &["stop", OURS])?;
        revert()?;
        // Its own may be over by now; ours was renewed.
        let ours = identity::stored(host, &paths.identity()).ok().flatten();
        let newer = ours.filter(|it| it.valid_at(SystemTime::now()));
        sidecar::put_back(host, &store, newer.as_ref())?;
        // With it enabled this agent refuses to start, and whatever its number, Istio's own does.
        if before.enabled {
            systemctl(host, &["--no-reload", "enable", sidecar::UNIT])?;
        }
        // The files that were put back are our number's, too; and where the user has its own again, its files may not.
        if let (Some(ids), Some(_)) = (before.user, sidecar::ids(host)?) {
            account::renumber(host, account::OURS, ids)?;
        }
        systemctl(host, &["--no-reload", "disable", OURS])?;
        steps::clean_up_again(host)?;
        if start {
            systemctl(host, &["start", sidecar::UNIT])?;
        }
        sidecar::remove_backup(host, &store)
    }
}
