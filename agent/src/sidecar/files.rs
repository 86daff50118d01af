//! The files of Istio's own agent, read with bounds: anybody may have written them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::host::{Host, Read};

/// The operator's variables; sourced first.
pub const SIDECAR_ENV: &str = "/var/lib/istio/envoy/sidecar.env";
/// istioctl's variables; they win.
pub const CLUSTER_ENV: &str = "/var/lib/istio/envoy/cluster.env";
/// mesh.yaml. /etc/istio is a link to /var/lib/istio.
pub(super) const MESH: &str = "/etc/istio/config/mesh";
/// The bootstrap token, on a tmpfs: gone after a reboot.
pub(super) const TOKEN: &str = "/var/run/secrets/tokens/istio-token";
pub(super) const HOSTS: &str = "/etc/hosts";
/// Roots of last resort (pkg/istio-agent/agent.go, CitadelCACertPath).
pub(super) const FALLBACK_ROOT: &str = "/var/run/secrets/istio/root-cert.pem";
/// PROV_CERT and OUTPUT_CERTS when they are not set (istio-start.sh).
pub(super) const CERTIFICATES: &str = "/etc/certs";
/// Names in OUTPUT_CERTS.
pub(super) const KEY: &str = "key.pem";
pub(super) const CHAIN: &str = "cert-chain.pem";
pub(super) const ROOT: &str = "root-cert.pem";

/// Files that Istio's agent makes for itself at each start, and leaves when it is killed.
pub(super) const MADE: [&str; 5] = [
    "/etc/istio/proxy/XDS",
    "/etc/istio/proxy/SDS",
    "/etc/istio/proxy/envoy-rev.json",
    "/etc/istio/proxy/grpc-bootstrap.json",
    "/var/run/secrets/workload-spiffe-uds/socket",
];

const MAX_BYTES: usize = 1 << 20;

/// Reads one of the files; `None` when it is not there.
///
/// # Errors
/// When it is no text, or too long.
pub fn read(host: &Host, path: &Path) -> Result<Option<String>, ConfigError> {
    Ok(host.read(path, Read::max(MAX_BYTES).given())?)
}

/// Reads a file that is to go and may come back, with what the open file itself says of its owner and mode. It must
/// be `user`'s, or root's in a folder that is Istio's by name: the user may have named any other one.
pub(super) fn read_own(host: &Host, path: &Path, user: Option<u32>) -> Result<Option<(String, Metadata)>, ConfigError> {
    let Some(found) = host.open(path, Read::max(MAX_BYTES).given())? else {
        return Ok(None);
    };
    let meta = found.meta().clone();
    let is_istios = path == Path::new(TOKEN) || path.parent() == Some(Path::new(CERTIFICATES));
    let expected = user == Some(meta.uid()) || (is_istios && meta.uid() == 0);
    match expected {
        true => Ok(Some((found.text()?, meta))),
        false => Err(ConfigError::new(
            path,
            format!(
                "belongs to user {}, and is none of what Istio's own agent has made: it stays; move it elsewhere, or set \
             OUTPUT_CERTS to another folder",
                meta.uid()
            ),
        )),
    }
}

/// A path as it is for a unit that runs in `/`.
pub(super) fn absolute(path: &str) -> PathBuf {
    Path::new("/").join(path.trim_start_matches("./"))
}
