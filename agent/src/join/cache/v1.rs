//! Version 1 of the cache, in which the bundle of every source was files. Such a document is read until the source's next
//! answer, which is written in the current version.

use serde::Deserialize;

use crate::join::files::{File, Files, SignatureFiles};

#[derive(Deserialize)]
struct Cached {
    cluster_env: Document,
    mesh_yaml: Document,
    root_cert: Document,
    hosts: Document,
    #[serde(default)]
    signed: Option<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    sums: Document,
    signature: Document,
}

#[derive(Deserialize)]
struct Document {
    path: String,
    text: String,
}

/// The files of a document of version 1.
pub(super) fn parse(text: &str) -> serde_json::Result<Files> {
    let cached: Cached = serde_json::from_str(text)?;
    Ok(Files {
        cluster_env: cached.cluster_env.into(),
        mesh_yaml: cached.mesh_yaml.into(),
        root_cert: cached.root_cert.into(),
        hosts: cached.hosts.into(),
        signature: cached.signed.map(|signed| SignatureFiles {
            sums: signed.sums.into(),
            signature: signed.signature.into(),
        }),
    })
}

impl From<Document> for File {
    fn from(document: Document) -> Self {
        Self::new(document.path, document.text)
    }
}
