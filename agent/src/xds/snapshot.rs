//! The configuration that Envoy accepted last, kept in the state directory for a start while no istiod answers.
//!
//! `recorder` writes what Envoy has once Envoy is ready, a few seconds after a change; `peer` answers Envoy out of the
//! file; `document` is the file's format. Between two writes and for an answer the resources are in memory, and at no
//! other time. Secrets are not kept: the agent's own SDS has those that Envoy needs to serve.
//!
//! Incremental xDS alone, which is what the agent has Envoy speak: in the state of the world a resource has its name
//! inside, and none is parsed here.

pub(super) mod document;
pub(super) mod peer;
pub(super) mod recorder;

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use self::document::{MAX_BYTES, Member, Snapshot};
use crate::facts::Membership;
use crate::host::{Host, Read};

/// Type of secrets over ADS: of an egress TLS that names a Kubernetes Secret.
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";

/// True for types whose resources may be kept.
fn may_keep(type_url: &str) -> bool {
    type_url != SECRET
}

/// The file.
#[derive(Clone, Debug)]
pub(super) struct SnapshotFile {
    pub(super) host: Host,
    pub(super) path: PathBuf,
}

impl SnapshotFile {
    /// The snapshot of this member of the mesh; `None` when none is there. Blocks.
    ///
    /// # Errors
    /// When it can't be used: it is damaged, of another format, of another machine or of another member.
    pub(super) fn load(&self, membership: &Membership) -> Result<Option<Snapshot>> {
        let Some(bytes) = self.host.read_bytes(&self.path, Read::max(MAX_BYTES))? else {
            return Ok(None);
        };
        let member = Member::of(&self.host, membership);
        let snapshot = Snapshot::parse(bytes.into(), &member).with_context(|| {
            format!(
                "{} is not used, istiod's next configuration replaces it",
                self.path.display()
            )
        })?;
        Ok(Some(snapshot))
    }

    /// Replaces the snapshot, whole or not at all, unless it is the same already. Blocks until it is on the disk.
    pub(super) fn save(&self, membership: &Membership, snapshot: &Snapshot) -> Result<()> {
        let bytes = snapshot.encode(&Member::of(&self.host, membership))?;
        let there = self.host.read_bytes(&self.path, Read::max(MAX_BYTES)).ok().flatten();
        if there.as_ref() != Some(&bytes) {
            self.host.write_bytes(&self.path, &bytes, 0o600)?;
        }
        Ok(())
    }

    /// Removes the snapshot, if there is one. Blocks.
    pub(super) fn remove(&self) -> Result<()> {
        let removed = self.host.remove(&self.path);
        removed.with_context(|| format!("failed to remove {}, which is out of date", self.path.display()))
    }

    /// Time of the last write; `None` when there is no file.
    pub(super) fn written(&self) -> Option<SystemTime> {
        self.host.meta(&self.path).ok().flatten()?.modified().ok()
    }
}
