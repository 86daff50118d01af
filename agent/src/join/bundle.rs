//! The bundle that a source gives: typed, and with the places that errors are to name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::files::Files;
use super::origin::{Origin, ParseError, Position};
use super::signed::{self, Signed};
use super::{cluster_env, hosts_lines, mesh_yaml};
use crate::config::ConfigError;
use crate::facts::{HostEntry, ProxyConfig};

/// All that a source knows of this VM and its mesh, before Istio's defaults and the configuration are laid over it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Bundle {
    /// The variables of cluster.env.
    pub(super) env: BTreeMap<String, String>,
    /// `defaultConfig` of mesh.yaml, as it is written.
    pub(super) proxy_config: ProxyConfig,
    /// Certificates in PEM, unchecked.
    pub(super) roots: String,
    /// Lines for /etc/hosts. Their names are unchecked.
    pub(super) hosts: Vec<HostEntry>,
    /// The file with the bootstrap token, which is read again for every call.
    #[serde(skip)]
    pub(super) token: Option<PathBuf>,
    /// Parts of the files that no VM heeds, each with its place and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) unheeded: Vec<String>,
    /// The files' signature; absent where the configuration wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) signed: Option<Signed>,
    pub(super) origins: Origins,
}

/// The origin of each part of a bundle.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Origins {
    /// KeyOrigin are variables.
    pub(super) env: Origin,
    /// KeyOrigin are fields, `defaultConfig.` and `defaultConfig.proxyMetadata.` before them.
    pub(super) proxy_config: Origin,
    pub(super) roots: Origin,
    /// KeyOrigin are indexes of entries.
    pub(super) hosts: Origin,
}

impl Bundle {
    /// Parses files, after their signature where `public_key` wants one: nothing unsigned is looked at.
    pub(super) fn parse(files: &Files, public_key: Option<&str>) -> Result<Self, ConfigError> {
        let signed = public_key.map(|key| signed::check(files, key)).transpose()?;
        let Files {
            cluster_env,
            mesh_yaml,
            root_cert,
            hosts,
            ..
        } = files;
        let env = cluster_env::parse(&cluster_env.text).map_err(|error| cluster_env.origin.error(error));
        let mesh = mesh_yaml::parse(&mesh_yaml.text).map_err(|error| mesh_yaml.origin.error(error));
        let entries = hosts_lines::parse(&hosts.text).map_err(|error| hosts.origin.error(error));
        let (env, mesh, entries) = match (env, mesh, entries) {
            (Ok(env), Ok(mesh), Ok(entries)) => (env, mesh, entries),
            (env, mesh, entries) => return Err(told_together([env.err(), mesh.err(), entries.err()])),
        };
        let lines = entries.iter().enumerate();
        let lines = lines.map(|(index, (line, _))| (index.to_string(), *line)).collect();
        Ok(Self {
            env: env.values,
            proxy_config: mesh.proxy_config,
            roots: root_cert.text.clone(),
            hosts: entries.into_iter().map(|(_, entry)| entry).collect(),
            token: None,
            unheeded: unheeded(files, &env.overridden, &mesh.others),
            signed,
            origins: Origins {
                env: cluster_env.origin.clone().with_lines(env.lines),
                proxy_config: mesh_yaml.origin.clone().with_lines(mesh.lines),
                roots: root_cert.origin.clone(),
                hosts: hosts.origin.clone().with_lines(lines),
            },
        })
    }
}

/// Lines that are written, and count for nothing.
fn unheeded(files: &Files, overridden: &[(Position, String)], others: &[(String, Position)]) -> Vec<String> {
    let overridden = overridden.iter().map(|(at, key)| {
        let problem =
            format!("{key}: is not heeded: a later line says otherwise, and counts, as in a shell: remove one of them");
        files.cluster_env.origin.error(ParseError::at(*at, problem)).to_string()
    });
    let others = others.iter().map(|(member, at)| {
        let problem = format!(
            "{member}: is not heeded: of mesh.yaml a VM takes defaultConfig, and istiod the rest from its own configuration: \
             write it there"
        );
        files.mesh_yaml.origin.error(ParseError::at(*at, problem)).to_string()
    });
    overridden.chain(others).collect()
}

/// The errors of parts that were judged beside each other, one of them at least.
pub(super) fn told_together(errors: impl IntoIterator<Item = Option<ConfigError>>) -> ConfigError {
    ConfigError::all(errors.into_iter().flatten())
        .unwrap_or_else(|| ConfigError::about("the bundle", "is of no use: make it again"))
}
