//! The bundle as a directory: what `istioctl x workload entry configure` wrote, copied to the VM.

use std::path::Path;

use crate::config::ConfigError;
use crate::host::Host;

use super::assemble::Documents;
use super::document::Document;

/// istioctl's files are a few kilobytes each.
const MAX_BYTES: u64 = 1 << 20;

/// Reads all files once. Only the token may be missing: a VM with a valid certificate needs none.
pub(super) fn read(directory: &Path, host: &Host) -> Result<Documents, ConfigError> {
    let optional = |name: &str| {
        let path = directory.join(name);
        match host.read_foreign(&path, MAX_BYTES) {
            Ok(text) => Ok(text.map(|text| Document { path, text })),
            Err(error) => Err(ConfigError::new(&path, format!("failed to read the bundle: {error}"))),
        }
    };
    let required = |name: &str| {
        optional(name)?.ok_or_else(|| {
            ConfigError::new(
                &directory.join(name),
                "is missing: join.directory must hold what `istioctl x workload entry configure` wrote",
            )
        })
    };
    Ok(Documents {
        cluster_env: required("cluster.env")?,
        mesh_yaml: required("mesh.yaml")?,
        root_cert: required("root-cert.pem")?,
        hosts: required("hosts")?,
        token: optional("istio-token")?,
    })
}
