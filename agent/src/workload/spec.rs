//! The container's specification: as Docker is told it, and as the hash by which a container of it is known. Pure.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use serde::Serialize;

use crate::config::{ContainerConfig, DEFAULT_LOG_SIZE, DEFAULT_PIDS_LIMIT, Network, Size};
use crate::docker;

/// The label with the hash of the specification that a container was made from.
pub(super) const SPEC: &str = "io.istio.vm-agent.spec";
/// The label with the number of the defaults that a container was made with, of which the specification says nothing.
pub(super) const DEFAULTS: &str = "io.istio.vm-agent.defaults";
/// The number of today's defaults, counted up when a container is made with others than before. A container without the
/// label has all of Docker's capabilities, new privileges and no limit.
pub(super) const DEFAULTS_NOW: &str = "1";
/// Docker's driver of JSON files, which keeps them for ever unless it is told otherwise.
pub(super) const JSON_FILES: &str = "json-file";

/// The specification by which two containers are the same. A key added later must be left out while it has its default:
/// else an upgrade of the agent replaces every container. Defaults have their number in the label `DEFAULTS`.
#[derive(Serialize)]
struct Spec<'a> {
    image: &'a str,
    command: Option<&'a [String]>,
    env: &'a BTreeMap<String, String>,
    network: &'static str,
    ports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_drop: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_add: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    no_new_privileges: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pids_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_size: Option<Size>,
}

/// The SHA-256 of the specification, in lower-case hex.
pub(super) fn hash(config: &ContainerConfig) -> String {
    let spec = Spec {
        image: &config.image,
        command: config.command.as_deref(),
        env: &config.env,
        network: network(config),
        ports: config.ports.iter().map(ToString::to_string).collect(),
        cap_drop: config.cap_drop.as_deref(),
        cap_add: Some(&*config.cap_add).filter(|added| !added.is_empty()),
        no_new_privileges: Some(config.no_new_privileges).filter(|holds| !holds),
        memory: config.memory,
        cpus: config.cpus,
        pids_limit: Some(config.pids_limit).filter(|limit| *limit != DEFAULT_PIDS_LIMIT),
        log_size: Some(config.log_size).filter(|size| *size != DEFAULT_LOG_SIZE),
    };
    // Strings, lists and maps with string keys always serialise.
    let bytes = serde_json::to_vec(&spec).unwrap_or_default();
    hex::encode(digest(&SHA256, &bytes))
}

/// The body of `POST /containers/create`, for a dockerd whose containers log by `log_driver` unless told otherwise.
pub(super) fn create_body(config: &ContainerConfig, log_driver: &str) -> ContainerCreateBody {
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
        labels: Some(labels(config)),
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
            ..limits(config, log_driver)
        }),
        ..ContainerCreateBody::default()
    }
}

fn labels(config: &ContainerConfig) -> HashMap<String, String> {
    let mut labels = docker::new_labels();
    labels.insert(SPEC.to_owned(), hash(config));
    labels.insert(DEFAULTS.to_owned(), DEFAULTS_NOW.to_owned());
    labels
}

/// The container's rights, and its limits on the VM.
fn limits(config: &ContainerConfig, log_driver: &str) -> HostConfig {
    let log_files = || HostConfigLogConfig {
        typ: Some(JSON_FILES.to_owned()),
        config: Some(HashMap::from([
            ("max-file".to_owned(), "2".to_owned()),
            ("max-size".to_owned(), (config.log_size.bytes() / 2).to_string()),
        ])),
    };
    HostConfig {
        cap_drop: Some(config.dropped()),
        cap_add: Some(config.added()).filter(|added| !added.is_empty()),
        security_opt: config.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
        memory: config.memory.and_then(|memory| i64::try_from(memory.bytes()).ok()),
        // A float's conversion saturates.
        nano_cpus: config.cpus.map(|cpus| (cpus * 1e9) as i64),
        pids_limit: Some(config.pids_limit.into()),
        // The other drivers have limits of their own, or write elsewhere, and know other options.
        log_config: (log_driver == JSON_FILES).then(log_files),
        ..HostConfig::default()
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
    fn hash_follows_what_makes_the_container_and_nothing_else() {
        let plain = hash(&config(""));
        assert_eq!(
            plain,
            hash(&config(
                "stop_timeout = '3s'\ndocker_socket = '/d.sock'\ncloud_identity = true"
            ))
        );
        for change in [
            "env = { A = '1' }",
            "command = []",
            "network = 'host'",
            "ports = ['80:80']",
            "cap_drop = []",
            "cap_add = ['SYS_NICE']",
            "no_new_privileges = false",
            "memory = '1g'",
            "cpus = 0.5",
            "pids_limit = 9",
            "log_size = '1m'",
        ] {
            assert_ne!(plain, hash(&config(change)), "{change}");
        }
    }

    #[test]
    fn hash_of_a_given_specification_never_changes() {
        let config = config("env = { B = '2', A = '1' }\ncommand = ['serve']\nports = ['3550:3551']");
        assert_eq!(
            hash(&config),
            "23927e6a568dd410800b568f9b168a16f885ff8192eabb343f135aae9d78d137"
        );
    }

    #[test]
    fn create_body_tells_docker_the_whole_specification() {
        let config =
            config("env = { A = '1' }\ncommand = ['serve']\nports = ['80:8080', '81:8080']\nstop_timeout = '7s'");
        let body = serde_json::to_value(create_body(&config, "journald")).unwrap();
        assert_eq!(body["Image"], "registry.example/web:1");
        assert_eq!(body["Env"], serde_json::json!(["A=1"]));
        assert_eq!(body["Cmd"], serde_json::json!(["serve"]));
        assert_eq!(body["StopTimeout"], 7);
        assert_eq!(body["Labels"][docker::MANAGED], "true");
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

    #[test]
    fn create_body_gives_no_more_than_a_server_needs() {
        let limits = |extra: &str| {
            let body = serde_json::to_value(create_body(&config(extra), JSON_FILES)).unwrap();
            body["HostConfig"].clone()
        };
        let plain = limits("");
        let dropped = serde_json::json!(["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"]);
        assert_eq!(plain["CapDrop"], dropped);
        assert_eq!(plain["SecurityOpt"], serde_json::json!(["no-new-privileges"]));
        assert_eq!(plain["PidsLimit"], 4096);
        assert_eq!(plain["LogConfig"]["Type"], "json-file");
        let files = serde_json::json!({ "max-file": "2", "max-size": (50 << 20).to_string() });
        assert_eq!(plain["LogConfig"]["Config"], files);
        assert!(plain.get("Memory").is_none_or(serde_json::Value::is_null), "{plain}");

        let host = limits("network = 'host'")["CapDrop"].to_string();
        assert!(host.contains("SETUID") && host.contains("SETGID"), "{host}");

        let chosen =
            limits("cap_add = ['cap_net_raw']\nno_new_privileges = false\nmemory = '1g'\ncpus = 1.5\npids_limit = 9");
        assert_eq!(chosen["CapAdd"], serde_json::json!(["NET_RAW"]));
        assert!(!chosen["CapDrop"].to_string().contains("NET_RAW"), "{chosen}");
        assert!(
            chosen.get("SecurityOpt").is_none_or(serde_json::Value::is_null),
            "{chosen}"
        );
        assert_eq!(chosen["Memory"], 1 << 30);
        assert_eq!(chosen["NanoCpus"], 1_500_000_000);
        assert_eq!(chosen["PidsLimit"], 9);
        assert_eq!(limits("cap_drop = ['all']")["CapDrop"], serde_json::json!(["ALL"]));
    }
}
