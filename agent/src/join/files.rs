//! A bundle as files: the texts that `istioctl x workload entry configure` writes, the token aside.

use std::fmt;

use super::origin::Origin;

/// One file of a bundle.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct File {
    /// The file's path or URL.
    pub(super) origin: Origin,
    /// All of it.
    pub(super) text: String,
}

impl File {
    /// A file's text, and the path or URL that it was read from.
    pub(super) fn new(name: impl fmt::Display, text: impl Into<String>) -> Self {
        Self {
            origin: Origin::new(name),
            text: text.into(),
        }
    }
}

impl fmt::Debug for File {
    /// Without the text, which may be that of another file than was meant, and secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({}, {} bytes)", self.origin, self.text.len())
    }
}

/// All files of a bundle, unparsed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Files {
    pub(super) cluster_env: File,
    pub(super) mesh_yaml: File,
    pub(super) root_cert: File,
    pub(super) hosts: File,
    /// Present where the configuration wants the others signed, and somebody did.
    pub(super) signature: Option<SignatureFiles>,
}

/// The two files that vouch for the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SignatureFiles {
    /// SHA256SUMS.
    pub(super) sums: File,
    /// SHA256SUMS.minisig.
    pub(super) signature: File,
}

impl Files {
    /// The files that are signed, by their names.
    pub(super) fn by_name(&self) -> [(&'static str, &File); 4] {
        [
            ("cluster.env", &self.cluster_env),
            ("hosts", &self.hosts),
            ("mesh.yaml", &self.mesh_yaml),
            ("root-cert.pem", &self.root_cert),
        ]
    }
}
