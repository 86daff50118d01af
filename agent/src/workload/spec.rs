//! The container's specification: as Docker is told it, and as the hash by which a container of it is known. Pure.

mod limits;

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding, ResourcesUlimits,
    RestartPolicy, RestartPolicyNameEnum,
};
use serde::Serialize;

pub(super) use limits::Limits;

use super::wanted::Wanted;
use crate::config::{
    self, ContainerConfig, DEFAULT_LOG_SIZE, DEFAULT_PIDS_LIMIT, Network, SECRETS_TARGET, Size, Ulimit,
};
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
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mounts: Vec<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tmpfs: &'a [String],
    #[serde(skip_serializing_if = "is_false")]
    secrets: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "is_false")]
    read_only: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    ulimits: &'a BTreeMap<String, Ulimit>,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> Spec<'a> {
    /// All but what Docker changes of a container that runs ([`Limits`]).
    fn of(config: &'a ContainerConfig) -> Self {
        Self {
            image: &config.image,
            command: config.command.as_deref(),
            env: &config.env,
            network: network(config),
            ports: config.ports.iter().map(ToString::to_string).collect(),
            cap_drop: config.cap_drop.as_deref(),
            cap_add: Some(&*config.cap_add).filter(|added| !added.is_empty()),
            no_new_privileges: Some(config.no_new_privileges).filter(|holds| !holds),
            memory: None,
            cpus: None,
            pids_limit: None,
            log_size: Some(config.log_size).filter(|size| *size != DEFAULT_LOG_SIZE),
            mounts: config.mounts.iter().map(ToString::to_string).collect(),
            tmpfs: &config.tmpfs,
            secrets: !config.secrets.is_empty(),
            user: config.user.as_deref(),
            read_only: config.read_only,
            labels: &config.labels,
            stop_signal: config.stop_signal.as_deref(),
            ulimits: &config.ulimits,
        }
    }

    fn hash(&self) -> String {
        // Strings, lists and maps with string keys always serialise.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(digest(&SHA256, &bytes))
    }
}

/// The SHA-256 of the specification, in lower-case hex.
pub(super) fn hash(config: &ContainerConfig) -> String {
    Spec::of(config).hash()
}

/// True when `label` is the hash of this specification, or that of an earlier version, which had the limits in it.
pub(super) fn is_of(label: &str, config: &ContainerConfig) -> bool {
    let with_limits = Spec {
        memory: config.memory,
        cpus: config.cpus,
        pids_limit: Some(config.pids_limit).filter(|limit| *limit != DEFAULT_PIDS_LIMIT),
        ..Spec::of(config)
    };
    label == hash(config) || label == with_limits.hash()
}

/// The body of `POST /containers/create`, for a dockerd whose containers log by `log_driver` unless told otherwise.
pub(super) fn create_body(wanted: &Wanted, log_driver: &str) -> ContainerCreateBody {
    let config = &wanted.config;
    let exposed = config.ports.iter().map(|port| format!("{}/tcp", port.container));
    ContainerCreateBody {
        image: Some(config.image.clone()),
        cmd: config.command.clone(),
        env: Some(config.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        user: config.user.clone(),
        exposed_ports: (!config.ports.is_empty()).then(|| exposed.collect()),
        labels: Some(labels(config)),
        stop_signal: config.stop_signal.clone(),
        // So that dockerd gives it the same time when dockerd itself is stopped.
        stop_timeout: i64::try_from(config.stop_timeout.as_secs()).ok(),
        host_config: Some(HostConfig {
            network_mode: Some(network(config).to_owned()),
            port_bindings: wanted.publishes.then(|| port_bindings(config)),
            // The agent restarts it. After a reboot dockerd would start it before the rules are in, and what
            // calls it then would go around Envoy.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            mounts: Some(mounts(wanted)).filter(|mounts| !mounts.is_empty()),
            tmpfs: (!config.tmpfs.is_empty()).then(|| tmpfs(config)),
            readonly_rootfs: config.read_only.then_some(true),
            ..rights(config, log_driver)
        }),
        ..ContainerCreateBody::default()
    }
}

fn port_bindings(config: &ContainerConfig) -> HashMap<String, Option<Vec<PortBinding>>> {
    let mut bindings: HashMap<String, Option<Vec<PortBinding>>> = HashMap::new();
    for port in config.published() {
        bindings
            .entry(format!("{}/tcp", port.container))
            .or_default()
            .get_or_insert_default()
            .push(PortBinding {
                host_ip: None,
                host_port: Some(port.host.to_string()),
            });
    }
    bindings
}

fn mounts(wanted: &Wanted) -> Vec<Mount> {
    let configured = wanted.config.mounts.iter().map(|mount| Mount {
        typ: Some(if mount.is_volume() {
            MountType::VOLUME
        } else {
            MountType::BIND
        }),
        ..of_docker(mount)
    });
    // Read by whoever is in the container, and by nobody else.
    let secrets = wanted.secrets.iter().map(|directory| Mount {
        typ: Some(MountType::BIND),
        source: Some(directory.display().to_string()),
        target: Some(SECRETS_TARGET.to_owned()),
        read_only: Some(true),
        ..Mount::default()
    });
    configured.chain(secrets).collect()
}

fn of_docker(mount: &config::Mount) -> Mount {
    Mount {
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Mount::default()
    }
}

fn tmpfs(config: &ContainerConfig) -> HashMap<String, String> {
    config
        .tmpfs
        .iter()
        .map(|target| (target.clone(), String::new()))
        .collect()
}

fn labels(config: &ContainerConfig) -> HashMap<String, String> {
    let mut labels = docker::new_labels();
    labels.extend(config.labels.clone());
    labels.insert(SPEC.to_owned(), hash(config));
    labels.insert(DEFAULTS.to_owned(), DEFAULTS_NOW.to_owned());
    labels
}

/// The container's rights, and its limits on the VM.
fn rights(config: &ContainerConfig, log_driver: &str) -> HostConfig {
    let log_files = || HostConfigLogConfig {
        typ: Some(JSON_FILES.to_owned()),
        config: Some(HashMap::from([
            ("max-file".to_owned(), "2".to_owned()),
            ("max-size".to_owned(), (config.log_size.bytes() / 2).to_string()),
        ])),
    };
    let ulimits = config.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    });
    HostConfig {
        cap_drop: Some(config.dropped()),
        cap_add: Some(config.added()).filter(|added| !added.is_empty()),
        security_opt: config.no_new_privileges.then(|| vec!["no-new-privileges".to_owned()]),
        ulimits: (!config.ulimits.is_empty()).then(|| ulimits.collect()),
        // The other drivers have limits of their own, or write elsewhere, and know other options.
        log_config: (log_driver == JSON_FILES).then(log_files),
        ..Limits::wanted(config).host_config()
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

    fn wanted(config: &ContainerConfig, publishes: bool) -> Wanted {
        Wanted {
            config: config.clone(),
            secrets: (!config.secrets.is_empty()).then(|| "/run/a/secrets/container".into()),
            publishes,
        }
    }

    #[test]
    fn hash_follows_what_makes_the_container_and_nothing_else() {
        let plain = hash(&config(""));
        assert_eq!(
            plain,
            hash(&config(
                "stop_timeout = '3s'\ndocker_socket = '/d.sock'\ncloud_identity = true\nmemory = '1g'\ncpus = 0.5\n\
                 pids_limit = 9"
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
            "log_size = '1m'",
            "mounts = ['/a:/b']",
            "tmpfs = ['/tmp']",
            "secrets = ['/key']",
            "user = 'app'",
            "read_only = true",
            "labels = { a = 'b' }",
            "stop_signal = 'SIGQUIT'",
            "ulimits = { nofile = '10' }",
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
    fn container_of_an_earlier_version_is_known_by_the_hash_that_had_the_limits() {
        let config = config("memory = '512m'\ncpus = 1.5\npids_limit = 9");
        let earlier = "e13105107fd4fb23335f9e15cd5fe5853d493febfe5cdd6db687682f0d911ff7";
        assert!(is_of(earlier, &config) && is_of(&hash(&config), &config));
        assert!(!is_of(earlier, &self::config("memory = '1g'")));
    }

    #[test]
    fn create_body_tells_docker_the_whole_specification() {
        let config =
            config("env = { A = '1' }\ncommand = ['serve']\nports = ['80:8080', '81:8080']\nstop_timeout = '7s'");
        let body = serde_json::to_value(create_body(&wanted(&config, true), "journald")).unwrap();
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
    fn create_body_has_what_the_container_is_given_and_no_secret() {
        let config = config(
            "ports = ['80:8080']\nuser = '1000:1000'\nread_only = true\nstop_signal = 'SIGQUIT'\n\
             mounts = ['/srv/data:/data:ro', 'cache:/cache']\ntmpfs = ['/tmp']\nsecrets = ['/etc/a/key']\n\
             labels = { team = 'shop' }\nulimits = { nofile = '1024:4096' }",
        );
        let body = serde_json::to_value(create_body(&wanted(&config, false), JSON_FILES)).unwrap();
        assert_eq!(
            (&body["User"], &body["StopSignal"]),
            (&"1000:1000".into(), &"SIGQUIT".into())
        );
        assert_eq!(body["Labels"]["team"], "shop");
        let host = &body["HostConfig"];
        assert!(
            host.get("PortBindings").is_none_or(serde_json::Value::is_null),
            "{host}"
        );
        assert_eq!(host["ReadonlyRootfs"], true);
        assert_eq!(host["Tmpfs"], serde_json::json!({ "/tmp": "" }));
        let limit = serde_json::json!([{ "Name": "nofile", "Soft": 1024, "Hard": 4096 }]);
        assert_eq!(host["Ulimits"], limit);
        let mounts = serde_json::json!([
            { "Type": "bind", "Source": "/srv/data", "Target": "/data", "ReadOnly": true },
            { "Type": "volume", "Source": "cache", "Target": "/cache", "ReadOnly": false },
            { "Type": "bind", "Source": "/run/a/secrets/container", "Target": "/run/secrets", "ReadOnly": true },
        ]);
        assert_eq!(host["Mounts"], mounts);
    }

    #[test]
    fn create_body_gives_no_more_than_a_server_needs() {
        let limits = |extra: &str| {
            let body = serde_json::to_value(create_body(&wanted(&config(extra), false), JSON_FILES)).unwrap();
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
