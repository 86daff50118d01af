//! The VM's configuration, as far as a migration depends on it. The agent judges the rest (`config validate`).
//!
//! A key of the container that is not known here is refused, and not left out: the pods would differ from the VM.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;

use crate::migration::{Name, Text};

/// Keys of `[workload.container]` that mean dockerd, or how the agent changes one container for another.
const OF_DOCKER: [&str; 6] = [
    "docker_socket",
    "keep_images",
    "log_size",
    "name",
    "rollout",
    "startup_timeout",
];

/// One configuration.
#[derive(Default, Deserialize)]
pub(super) struct Vm {
    #[serde(default)]
    join: Join,
    #[serde(default)]
    network: Network,
    #[serde(default, deserialize_with = "only")]
    workload: Workload,
    #[serde(default)]
    health: Health,
}

#[derive(Default, Deserialize)]
struct Join {
    kubernetes: Option<Joined>,
    gke: Option<Joined>,
}

#[derive(Default, Deserialize)]
struct Network {
    cluster_domain: Option<Text>,
}

#[derive(Deserialize)]
struct Joined {
    namespace: Name,
    workload_group: Name,
    istio_namespace: Option<Name>,
    revision: Option<String>,
}

#[derive(Default, Deserialize)]
struct Workload {
    #[serde(default, deserialize_with = "container")]
    container: Option<Container>,
}

#[derive(Default, Deserialize)]
struct Health {
    probe: Option<Probe>,
}

/// `[workload.container]`. It has no Debug: values of variables may be secrets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Container {
    pub(super) image: String,
    pub(super) registry_config: Option<PathBuf>,
    pub(super) network: Option<String>,
    #[serde(default)]
    pub(super) ports: Vec<String>,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) env_files: Vec<PathBuf>,
    #[serde(default)]
    pub(super) secrets: Vec<PathBuf>,
    #[serde(default)]
    pub(super) mounts: Vec<String>,
    #[serde(default)]
    pub(super) tmpfs: Vec<String>,
    pub(super) command: Option<Vec<String>>,
    pub(super) user: Option<String>,
    #[serde(default)]
    pub(super) read_only: bool,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    pub(super) stop_signal: Option<String>,
    pub(super) stop_timeout: Option<String>,
    #[serde(default)]
    pub(super) cloud_identity: bool,
    pub(super) cap_drop: Option<Vec<String>>,
    #[serde(default)]
    pub(super) cap_add: Vec<String>,
    pub(super) no_new_privileges: Option<bool>,
    pub(super) memory: Option<String>,
    pub(super) cpus: Option<f64>,
    pub(super) pids_limit: Option<u32>,
    #[serde(default)]
    pub(super) ulimits: BTreeMap<String, String>,
}

/// `[health.probe]`. It has no Debug: headers may be secrets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Probe {
    pub(super) grpc: Option<Asked>,
    pub(super) http: Option<Asked>,
    pub(super) tcp: Option<Asked>,
    pub(super) exec: Option<Exec>,
    pub(super) initial_delay: Option<String>,
    pub(super) timeout: Option<String>,
    pub(super) period: Option<String>,
    pub(super) success_threshold: Option<u32>,
    pub(super) failure_threshold: Option<u32>,
}

/// Question of a probe over the network.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    pub(super) port: u16,
    pub(super) host: Option<String>,
    pub(super) service: Option<String>,
    pub(super) path: Option<String>,
    pub(super) scheme: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Exec {
    pub(super) command: Vec<String>,
}

impl Vm {
    fn joined(&self) -> Option<&Joined> {
        self.join.kubernetes.as_ref().or(self.join.gke.as_ref())
    }

    pub(super) fn namespace(&self) -> Option<&Name> {
        self.joined().map(|joined| &joined.namespace)
    }

    pub(super) fn workload_group(&self) -> Option<&Name> {
        self.joined().map(|joined| &joined.workload_group)
    }

    pub(super) fn istio_namespace(&self) -> Option<&Name> {
        self.joined()?.istio_namespace.as_ref()
    }

    /// The revision of the control plane; absent: the one without a suffix, which Istio's charts call `default`.
    pub(super) fn revision(&self) -> Option<&str> {
        let revision = self.joined()?.revision.as_deref();
        revision.filter(|revision| !["", "default"].contains(revision))
    }

    pub(super) fn cluster_domain(&self) -> Option<&Text> {
        self.network.cluster_domain.as_ref()
    }

    pub(super) fn container(&self) -> Option<&Container> {
        self.workload.container.as_ref()
    }

    pub(super) fn probe(&self) -> Option<&Probe> {
        self.health.probe.as_ref()
    }
}

/// Reads the configuration at `path`, on the VM or a copy of it.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own file on the operator's machine, which has no Host"
)]
pub(super) fn read(path: &Path) -> Result<Vm> {
    let about = || format!("failed to read {}: --vm names the VM's configuration", path.display());
    parse(path, &std::fs::read_to_string(path).with_context(about)?)
}

/// Errors say `FILE: problem`, without the lines around it, which may have secrets in them.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vm> {
    toml::from_str(text).map_err(|error| anyhow!("{}: {}", path.display(), error.message()))
}

/// `[workload]`, or the only `[[workload]]`; of several none, for which of them becomes the pods' is the operator's to say.
fn only<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Workload, D::Error> {
    let only = match toml::Value::deserialize(deserializer)? {
        toml::Value::Array(mut entries) => match (entries.pop(), entries.is_empty()) {
            (Some(only), true) => only,
            _ => return Ok(Workload::default()),
        },
        table => table,
    };
    only.try_into()
        .map_err(|error: toml::de::Error| serde::de::Error::custom(error.message()))
}

fn container<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Container>, D::Error> {
    let mut table = toml::Table::deserialize(deserializer)?;
    for key in OF_DOCKER {
        table.remove(key);
    }
    table
        .try_into()
        .map(Some)
        .map_err(|error: toml::de::Error| serde::de::Error::custom(error.message()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::init) fn vm(text: &str) -> Vm {
        parse(Path::new("config.toml"), text)
            .map_err(|error| error.to_string())
            .unwrap()
    }

    /// The lines of the example that show defaults are the keys of the agent.
    #[test]
    fn each_key_of_the_agents_container_is_known() {
        let example = include_str!("../../../../config.example.toml");
        let section = example.split("#[workload.container]\n").nth(1).unwrap();
        let section = section.split("\n#[health]").next().unwrap();
        let lines = section.lines().filter_map(|line| line.strip_prefix('#'));
        let keys: String = lines
            .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
            .map(|line| format!("{line}\n"))
            .collect();
        assert!(keys.lines().count() > 20, "{keys}");
        let vm = vm(&format!("[workload.container]\n{keys}"));
        assert_eq!(vm.container().unwrap().ports, ["3550:3550"]);
    }

    #[test]
    fn container_of_several_applications_is_none() {
        let entry = "[[workload]]\n[workload.container]\nimage = 'x:1'\n";
        assert_eq!(vm(entry).container().unwrap().image, "x:1");
        assert!(vm(&entry.repeat(2)).container().is_none());
    }

    #[test]
    fn key_that_is_not_known_is_refused_without_its_neighbors() {
        let text = "[workload.container]\nimage = 'x:1'\nenv = { KEY = 'hush' }\nshm_size = 'hush'\n";
        let refused = parse(Path::new("config.toml"), text).err().unwrap().to_string();
        assert!(
            refused.starts_with("config.toml: unknown field `shm_size`"),
            "{refused}"
        );
        assert!(!refused.contains("hush"), "{refused}");
    }
}
