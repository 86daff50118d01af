//! What a remote source gave last, on disk: a reboot without the source serves from it. Never holds a token.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::assemble::Documents;
use super::document::Document;
use super::signed::Signed;
use crate::host::{Host, Machine, Read};

/// The format that this agent writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Four documents of a mebibyte at most, with room for JSON's escapes.
const MAX_BYTES: usize = 16 << 20;

#[derive(Deserialize, Serialize)]
struct Kept {
    version: u32,
    /// Whose documents these are: another source's are of no use.
    source: String,
    /// On which machine; absent: an agent kept them that made no mark.
    #[serde(default)]
    machine: Option<Machine>,
    cluster_env: Document,
    mesh_yaml: Document,
    root_cert: Document,
    hosts: Document,
    /// Without it the others are of no use where the configuration wants it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signed: Option<Signed>,
}

/// What `source` gave last; `None` when nothing is kept of it. An error says why it can't be used.
pub(super) fn load(host: &Host, path: &Path, source: &str) -> Result<Option<Documents>> {
    let Some(text) = host.read(path, Read::max(MAX_BYTES))? else {
        return Ok(None);
    };
    parse(&text, path, source, &host.machine())
}

/// The same of the file's text.
pub(super) fn parse(text: &str, path: &Path, source: &str, here: &Machine) -> Result<Option<Documents>> {
    let kept: Kept = serde_json::from_str(text).map_err(|error| anyhow!("{} is damaged: {error}", path.display()))?;
    ensure!(
        kept.version == VERSION,
        "{} is of version {}, this agent reads {VERSION}",
        path.display(),
        kept.version
    );
    if kept.machine.is_some_and(|of| here.is_another_than(&of)) {
        let place = path.display();
        tracing::warn!("{place} is of another machine, of whose disk this one's is a copy: this VM asks for itself");
        return Ok(None);
    }
    Ok((kept.source == source).then_some(Documents {
        cluster_env: kept.cluster_env,
        mesh_yaml: kept.mesh_yaml,
        root_cert: kept.root_cert,
        hosts: kept.hosts,
        token: None,
        signed: kept.signed,
    }))
}

/// Keeps `documents`, tokens aside, unless they are kept already.
pub(super) fn save(host: &Host, path: &Path, source: &str, documents: &Documents) -> Result<()> {
    let documents = documents.clone();
    let kept = Kept {
        version: VERSION,
        source: source.to_owned(),
        machine: Some(host.machine()),
        cluster_env: documents.cluster_env,
        mesh_yaml: documents.mesh_yaml,
        root_cert: documents.root_cert,
        hosts: documents.hosts,
        signed: documents.signed,
    };
    let text = serde_json::to_string_pretty(&kept).context("failed to encode the membership")?;
    if host.read(path, Read::max(MAX_BYTES)).ok().flatten().as_ref() == Some(&text) {
        return Ok(());
    }
    host.write(path, &text, 0o600, None)
        .with_context(|| format!("failed to keep the membership in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;
    use crate::host::machine::tests::{ONE, OTHER, set_machine_id};

    fn documents() -> Documents {
        let document = |name: &str| Document {
            path: name.into(),
            text: format!("text of {name}"),
        };
        Documents {
            cluster_env: document("cluster.env"),
            mesh_yaml: document("mesh.yaml"),
            root_cert: document("root-cert.pem"),
            hosts: document("hosts"),
            token: Some(document("secret")),
            signed: None,
        }
    }

    #[test]
    fn only_the_same_source_gets_its_documents_back_and_no_token() {
        let root = tempfile::tempdir().unwrap();
        let (host, path) = (Host::new(root.path(), System), Path::new("/membership.json"));
        assert!(load(&host, path, "a").unwrap().is_none());
        save(&host, path, "a", &documents()).unwrap();
        assert!(!host.text(path).contains("secret"));
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::metadata(host.real_path(path)).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, 0o600);
        let kept = load(&host, path, "a").unwrap().unwrap();
        assert_eq!((&kept.hosts, kept.token.is_some()), (&documents().hosts, false));
        assert!(load(&host, path, "b").unwrap().is_none());
    }

    #[test]
    fn a_copy_of_the_disk_asks_for_itself() {
        let root = tempfile::tempdir().unwrap();
        let (host, path) = (Host::new(root.path(), System), Path::new("/membership.json"));
        save(&host, path, "a", &documents()).unwrap();
        set_machine_id(&host, ONE);
        load(&host, path, "a").unwrap().unwrap();
        save(&host, path, "a", &documents()).unwrap();
        set_machine_id(&host, OTHER);
        assert!(load(&host, path, "a").unwrap().is_none());
        set_machine_id(&host, "uninitialized\n");
        load(&host, path, "a").unwrap().unwrap();
    }

    #[test]
    fn damage_is_named() {
        let root = tempfile::tempdir().unwrap();
        let (host, path) = (Host::new(root.path(), System), Path::new("/membership.json"));
        host.write(path, "{", 0o600, None).unwrap();
        let error = load(&host, path, "a").unwrap_err().to_string();
        assert!(error.starts_with("/membership.json is damaged: EOF"), "{error}");
        save(&host, path, "a", &documents()).unwrap();
        let newer = host.text(path).replace("\"version\": 1", "\"version\": 2");
        host.write(path, &newer, 0o600, None).unwrap();
        let error = load(&host, path, "a").unwrap_err().to_string();
        assert!(error.contains("is of version 2, this agent reads 1"), "{error}");
    }
}
