//! The bundle as a directory: what `istioctl x workload entry configure` wrote, copied to the VM.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::config::ConfigError;
use crate::host::{Changes, Host, Read};

use super::bundle::Bundle;
use super::files::{File, Files, SignatureFiles};
use super::{signed, token};

/// istioctl's files are a few kilobytes each.
const MAX_BYTES: usize = 1 << 20;

/// Wait between a change and the look at it: files of a bundle are copied one by one.
const SETTLE: Duration = Duration::from_secs(1);

/// `join.directory`.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    public_key: Option<String>,
    host: Host,
    changes: Mutex<Changes>,
}

impl Directory {
    /// A directory whose files the owner of `public_key` has signed, where there is one.
    pub(super) fn new(path: &Path, public_key: Option<&str>, host: &Host) -> Self {
        Self {
            path: path.to_owned(),
            public_key: public_key.map(str::to_owned),
            host: host.clone(),
            changes: Mutex::new(Changes::in_directory(&host.real_path(path))),
        }
    }

    /// The directory, for people.
    pub(super) fn name(&self) -> String {
        format!("directory {}", self.path.display())
    }

    /// True when others than root write the directory.
    pub(super) fn is_given(&self) -> bool {
        self.host.is_given(&self.path)
    }

    /// Reads all files once. Only the token may be missing: a VM with a valid certificate needs none.
    pub(super) fn read(&self) -> Result<Bundle, ConfigError> {
        let read = |name: &str| Ok(self.host.read(&self.path.join(name), Read::max(MAX_BYTES).given())?);
        bundle(&self.path, self.public_key.as_deref(), read)
    }

    /// Completes when a file has been written, and the writer has had time for the others.
    pub(super) async fn changed(&self) {
        let mut changes = self.changes.lock().await;
        changes.next().await;
        tokio::time::sleep(SETTLE).await;
    }
}

/// Parses files that are to be written into `directory`; `files` are names and texts.
pub(super) fn unwritten(directory: &Path, files: &[(&str, &str)]) -> Result<Bundle, ConfigError> {
    let text = |name: &str| {
        let file = files.iter().find(|(file, _)| *file == name);
        Ok(file.map(|(_, text)| (*text).to_owned()))
    };
    bundle(directory, None, text)
}

fn bundle(
    directory: &Path,
    public_key: Option<&str>,
    text: impl Fn(&str) -> Result<Option<String>, ConfigError>,
) -> Result<Bundle, ConfigError> {
    let optional = |name: &str| {
        let text = text(name)?;
        Ok::<_, ConfigError>(text.map(|text| File::new(directory.join(name).display(), text)))
    };
    let required = |name: &str| optional(name)?.ok_or_else(|| missing(&directory.join(name)));
    let mut files = Files {
        cluster_env: required("cluster.env")?,
        mesh_yaml: required("mesh.yaml")?,
        root_cert: required("root-cert.pem")?,
        hosts: required("hosts")?,
        signature: None,
    };
    let token = optional("istio-token")?;
    if public_key.is_some() {
        let pair = optional(signed::SUMS)?.zip(optional(signed::SIGNATURE)?);
        files.signature = pair.map(|(sums, signature)| SignatureFiles { sums, signature });
    }
    let mut bundle = Bundle::parse(&files, public_key)?;
    if let Some(File { origin, text }) = token {
        token::check(&text).map_err(|error| origin.error(error))?;
        bundle.token = Some(directory.join("istio-token"));
    }
    Ok(bundle)
}

fn missing(path: &Path) -> ConfigError {
    ConfigError::new(
        path,
        "is missing: join.directory must hold what `istioctl x workload entry configure` wrote",
    )
}
