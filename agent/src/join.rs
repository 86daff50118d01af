//! Who this VM is in the mesh and where the mesh is: cluster.env, mesh.yaml, roots, hosts and token to one
//! [`Membership`].
//!
//! Reads and checks; touches nothing on the VM and speaks to nobody. Where the documents come from is one small
//! module per source; what they mean is the same for all.

mod addresses;
mod assemble;
mod bundle;
mod cluster_env;
mod directory;
mod document;
mod hosts_lines;
mod mesh_yaml;
mod ports;
mod proxy_config;
mod readiness_probe;
mod root_certs;
mod token;

use crate::config::{Config, ConfigError, JoinConfig};
use crate::facts::Membership;
use crate::host::Host;

/// Reads the configured source once. Blocks; a name that only the VM's resolver knows is asked there.
///
/// Any problem is an error that names the file, the line and the key, and means exit code 78.
pub fn load(config: &Config, host: &Host) -> Result<Membership, ConfigError> {
    let JoinConfig::Directory(source) = &config.join;
    let documents = directory::read(&source.path, host)?;
    assemble::assemble(&documents, config, &addresses::Machine::observe())
}

#[cfg(test)]
mod tests;
