//! What the container must be, as Docker is told it, and the hash that tells whether one is that. Pure.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use aws_lc_rs::digest::{SHA256, digest};
use bollard::models::{ContainerCreateBody, HostConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum};
use serde::Serialize;

use crate::config::{ContainerConfig, Network};
use crate::docker::MANAGED;

/// Holds the hash of the specification that a container was made from.
pub(super) const SPEC: &str = "io.istio.vm-agent.spec";

/// What makes two containers the same. A key added later must be left out while it has its default: else an
/// upgrade of the agent replaces every container.
#[derive(Serialize)]
struct Spec<'a> {
    image: &'a str,
    command: Option<&'a [String]>,
    env: &'a BTreeMap<String, String>,
    network: &'static str,
    ports: Vec<String>,
}

/// SHA-256 over the specification, lower-case hex.
pub(super) fn hash(config: &ContainerConfig) -> String {
    let spec = Spec {
        image: &config.image,
        command: config.command.as_deref(),
        env: &config.env,
        network: network(config),
        ports: config.ports.iter().map(ToString::to_string).collect(),
    };
    // Strings, lists and maps with string keys always serialise.
    let bytes = serde_json::to_vec(&spec).unwrap_or_default();
    digest(&SHA256, &bytes)
        .as_ref()
        .iter()
        .fold(String::new(), |mut hex, byte| {
            // Writing to a String can't fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// What `POST /containers/create` is sent.
pub(super) fn create_body(config: &ContainerConfig) -> ContainerCreateBody {
    let exposed = config.ports.iter().map(|port| format!("{}/tcp", port.container));
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in &config.ports {
        bindings
            .entry(format!("{}/tcp", port.container))
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: None,
                host_port: Some(port.host.to_string()),
            });
    }
    ContainerCreateBody {
        image: Some(config.image.clone()),
        cmd: config.command.clone(),
        env: Some(config.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        exposed_ports: (!config.ports.is_empty()).then(|| exposed.collect()),
        labels: Some(HashMap::from([
            (MANAGED.to_owned(), "true".to_owned()),
            (SPEC.to_owned(), hash(config)),
        ])),
        // So that dockerd gives it the same time when dockerd itself is stopped.
        stop_timeout: i64::try_from(config.stop_timeout.as_secs()).ok(),
        host_config: Some(HostConfig {
            network_mode: Some(network(config).to_owned()),
            port_bindings: (!bindings.is_empty()).then_some(bindings),
            // The agent restarts it. After a reboot dockerd would start it before the rules are in, and what
            // calls it then would go around Envoy.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn network(config: &ContainerConfig) -> &'static str {
    match config.network {
        Network::Bridge => "bridge",
        Network::Host => "host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(extra: &str) -> ContainerConfig {
        toml::from_str(&format!("name = 'web'\nimage = 'registry.example/web:1'\n{extra}")).unwrap()
    }

    #[test]
    fn the_hash_follows_what_makes_the_container_and_nothing_else() {
        let plain = hash(&config(""));
        assert_eq!(plain, hash(&config("stop_timeout = '3s'\ndocker_socket = '/d.sock'")));
        for change in [
            "env = { A = '1' }",
            "command = []",
            "network = 'host'",
            "ports = ['80:80']",
        ] {
            assert_ne!(plain, hash(&config(change)), "{change}");
        }
    }

    #[test]
    fn the_hash_of_a_given_specification_never_changes() {
        let config = config("env = { B = '2', A = '1' }\ncommand = ['serve']\nports = ['3550:3551']");
        assert_eq!(
            hash(&config),
            "23927e6a568dd410800b568f9b168a16f885ff8192eabb343f135aae9d78d137"
        );
    }

    #[test]
    fn docker_is_told_all_of_it() {
        let config =
            config("env = { A = '1' }\ncommand = ['serve']\nports = ['80:8080', '81:8080']\nstop_timeout = '7s'");
        let body = serde_json::to_value(create_body(&config)).unwrap();
        assert_eq!(body["Image"], "registry.example/web:1");
        assert_eq!(body["Env"], serde_json::json!(["A=1"]));
        assert_eq!(body["Cmd"], serde_json::json!(["serve"]));
        assert_eq!(body["StopTimeout"], 7);
        assert_eq!(body["Labels"][MANAGED], "true");
        assert_eq!(body["Labels"][SPEC], hash(&config));
        assert_eq!(body["HostConfig"]["NetworkMode"], "bridge");
        assert_eq!(body["HostConfig"]["RestartPolicy"]["Name"], "no");
        let bindings = &body["HostConfig"]["PortBindings"]["8080/tcp"];
        assert_eq!(
            (&bindings[0]["HostPort"], &bindings[1]["HostPort"]),
            (&"80".into(), &"81".into())
        );
        assert!(body["ExposedPorts"].to_string().contains("8080/tcp"), "{body}");
        assert!(
            body["HostConfig"]
                .get("LogConfig")
                .is_none_or(serde_json::Value::is_null)
        );
    }
}
