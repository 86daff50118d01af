//! The bundle as a directory: what `istioctl x workload entry configure` wrote, copied to the VM.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::config::ConfigError;
use crate::host::{Changes, Host, Read};

use super::assemble::Documents;
use super::document::Document;
use super::signed::{self, Signed};

/// istioctl's files are a few kilobytes each.
const MAX_BYTES: usize = 1 << 20;

/// Wait between a change and the look at it: files of a bundle are copied one by one.
const SETTLE: Duration = Duration::from_secs(1);

/// `join.directory`.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    is_signed: bool,
    host: Host,
    changes: Mutex<Changes>,
}

impl Directory {
    /// `is_signed`: it holds a signature, too.
    pub(super) fn new(path: &Path, is_signed: bool, host: &Host) -> Self {
        Self {
            path: path.to_owned(),
            is_signed,
            host: host.clone(),
            changes: Mutex::new(Changes::in_directory(&host.real_path(path))),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("directory {}", self.path.display())
    }

    /// Whether others than root write it.
    pub(super) fn is_given(&self) -> bool {
        self.host.is_given(&self.path)
    }

    /// Reads all files once. Only the token may be missing: a VM with a valid certificate needs none.
    pub(super) fn read(&self) -> Result<Documents, ConfigError> {
        Ok(Documents {
            cluster_env: self.required("cluster.env")?,
            mesh_yaml: self.required("mesh.yaml")?,
            root_cert: self.required("root-cert.pem")?,
            hosts: self.required("hosts")?,
            token: self.optional("istio-token")?,
            signed: self.signed()?,
        })
    }

    /// Completes when a file has been written, and the writer has had time for the others.
    pub(super) async fn changed(&self) {
        let mut changes = self.changes.lock().await;
        changes.next().await;
        tokio::time::sleep(SETTLE).await;
    }

    fn signed(&self) -> Result<Option<Signed>, ConfigError> {
        if !self.is_signed {
            return Ok(None);
        }
        let [sums, signature] = [signed::SUMS, signed::SIGNATURE].map(|name| self.optional(name));
        Ok(sums?
            .zip(signature?)
            .map(|(sums, signature)| Signed { sums, signature }))
    }

    fn required(&self, name: &str) -> Result<Document, ConfigError> {
        self.optional(name)?.ok_or_else(|| missing(&self.path.join(name)))
    }

    fn optional(&self, name: &str) -> Result<Option<Document>, ConfigError> {
        let path = self.path.join(name);
        let text = self.host.read(&path, Read::max(MAX_BYTES).given())?;
        Ok(text.map(|text| Document { path, text }))
    }
}

/// The same of files, names and texts, that are to be written there.
pub(super) fn unwritten(directory: &Path, files: &[(&str, &str)]) -> Result<Documents, ConfigError> {
    let optional = |name: &str| {
        let file = files.iter().find(|(file, _)| *file == name);
        file.map(|(_, text)| Document {
            path: directory.join(name),
            text: (*text).to_owned(),
        })
    };
    let required = |name: &str| optional(name).ok_or_else(|| missing(&directory.join(name)));
    Ok(Documents {
        cluster_env: required("cluster.env")?,
        mesh_yaml: required("mesh.yaml")?,
        root_cert: required("root-cert.pem")?,
        hosts: required("hosts")?,
        token: optional("istio-token"),
        signed: None,
    })
}

fn missing(path: &Path) -> ConfigError {
    ConfigError::new(
        path,
        "is missing: join.directory must hold what `istioctl x workload entry configure` wrote",
    )
}
