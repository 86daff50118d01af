//! Each setting of Istio's own agent, and what becomes of it here.

use std::time::Duration;

use super::flags;
use super::settings::{Note, Settings};
use crate::config::{ENVOY_LEVELS, LONGEST, SHORTEST_TTL};

/// Keys of the configuration that settings become, beside the place of the bundle.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ImportedConfig {
    pub(super) addresses: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) no_rules: bool,
    pub(super) binary: Option<String>,
    pub(super) cluster_domain: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) concurrency: Option<u32>,
}

enum Mapping {
    /// The agent reads it in cluster.env, too.
    Bundle,
    /// A key of the configuration takes its place.
    ConfigKey(
        &'static str,
        fn(&mut ImportedConfig, &str, &Settings) -> Result<(), &'static str>,
    ),
    /// Nothing is different without it.
    Unneeded(&'static str),
    /// Something is different without it.
    Unsupported(&'static str),
}

/// Says what becomes of all settings; keys of the configuration go into `imported`. Settings of cluster.env that are
/// read from there are not worth a word.
pub(super) fn notes(settings: &Settings, imported: &mut ImportedConfig) -> Vec<Note> {
    let mut notes = Vec::new();
    for (key, value) in settings.iter().filter(|(_, value)| !value.is_empty()) {
        let setting = format!("{key}={value}");
        let (taken, detail) = match mapping(key, value) {
            Mapping::Bundle if settings.is_only_in_sidecar_env(key) => {
                (true, "is in the bundle's cluster.env".to_owned())
            }
            Mapping::Bundle => continue,
            Mapping::ConfigKey(name, put) => match put(imported, value, settings) {
                Ok(()) => (true, format!("is {name}")),
                Err(problem) => (false, problem.to_owned()),
            },
            Mapping::Unneeded(why) => (true, why.to_owned()),
            Mapping::Unsupported(why) => (false, why.to_owned()),
        };
        if key == "ISTIO_AGENT_FLAGS" {
            notes.extend(flag_notes(value, imported));
        } else {
            notes.push(Note { setting, taken, detail });
        }
    }
    notes
}

/// True for a variable that means the same in this agent's bundle.
pub(super) fn is_for_the_bundle(key: &str) -> bool {
    const NAMES: [&str; 20] = [
        "ISTIO_INBOUND_PORTS",
        "ISTIO_LOCAL_EXCLUDE_PORTS",
        "ISTIO_SERVICE_CIDR",
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        "ISTIO_OUTBOUND_PORTS",
        "ISTIO_OUTBOUND_OWNER_GROUPS",
        "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE",
        "ISTIO_EXCLUDE_INTERFACES",
        "ISTIO_DUAL_STACK",
        "ISTIO_NAMESPACE",
        "ISTIO_SERVICE",
        "ISTIO_SVC_IP",
        "POD_NAMESPACE",
        "SERVICE_ACCOUNT",
        "TRUST_DOMAIN",
        "CA_ADDR",
        "CANONICAL_SERVICE",
        "CANONICAL_REVISION",
        "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION",
    ];
    key.starts_with("ISTIO_META_") || key.starts_with("ISTIO_METAJSON_") || NAMES.contains(&key)
}

fn mapping(key: &str, value: &str) -> Mapping {
    use Mapping::ConfigKey;
    match key {
        _ if is_for_the_bundle(key) => Mapping::Bundle,
        "PILOT_ADDRESS" | "ISTIO_PILOT_PORT" => ConfigKey("control_plane.addresses", |imported, _, settings| {
            imported.addresses = settings.pilot_address().into_iter().collect();
            Ok(())
        }),
        "POD_NAME" => ConfigKey("network.name", |imported, value, _| {
            imported.name = Some(value.to_owned());
            Ok(())
        }),
        "SECRET_TTL" => ConfigKey("identity.ttl", |imported, value, _| {
            let ttl = humantime::parse_duration(value).ok();
            let ttl = ttl.filter(|ttl| (SHORTEST_TTL..=LONGEST).contains(ttl));
            imported.ttl = Some(ttl.ok_or("is no duration from 10m to 365days, which identity.ttl takes")?);
            Ok(())
        }),
        "ISTIO_CUSTOM_IP_TABLES" if value == "true" => ConfigKey("intercept.backend", |imported, _, _| {
            imported.no_rules = true;
            Ok(())
        }),
        "ISTIO_BIN_BASE" => ConfigKey("envoy.binary", |imported, value, _| {
            imported.binary = Some(format!("{}/envoy", value.trim_end_matches('/')));
            Ok(())
        }),
        _ => without(key, value),
    }
}

/// The mapping of a setting that has no place here.
fn without(key: &str, value: &str) -> Mapping {
    use Mapping::{Unneeded, Unsupported};
    match key {
        "ISTIO_SYSTEM_NAMESPACE" => Unneeded("is part of istiod's name"),
        "ISTIO_CUSTOM_IP_TABLES" => Unneeded("is what intercept.backend is by default"),
        "ISTIO_INBOUND_INTERCEPTION_MODE" if value != "TPROXY" => Unneeded("is what this agent does"),
        "ISTIO_CP_AUTH" if value == "MUTUAL_TLS" => Unneeded("is what this agent does"),
        "DUAL_STACK" => Unneeded("IPv6 is redirected wherever the VM has it"),
        "ISTIO_INBOUND_TPROXY_MARK" | "ISTIO_INBOUND_TPROXY_ROUTE_TABLE" => Unneeded("only TPROXY needs it"),
        "ISTIO_INBOUND_EXCLUDE_PORTS" | "ENVOY_PORT" | "ISTIO_CFG" => {
            Unneeded("Istio's own agent doesn't read it either")
        }
        "PROV_CERT" | "OUTPUT_CERTS" => Unneeded("is where the certificate was taken from; this agent keeps its own"),
        "ISTIO_AGENT_FLAGS" => Unneeded("is told flag by flag"),

        "ISTIO_INBOUND_INTERCEPTION_MODE" => Unsupported("the application sees 127.0.0.6 as the caller's address"),
        "ISTIO_LOG_DIR" => Unsupported("the log is in the journal: journalctl -u istio-vm-agent"),
        "ISTIO_CP_AUTH" => Unsupported("istiod is spoken to over TLS only"),
        "PROXY_CONFIG" => Unsupported("write its fields into defaultConfig of the bundle's mesh.yaml"),
        "ENVOY_USER" | "EXEC_USER" => Unsupported("Envoy runs as istio-proxy (1337)"),
        "KUBE_VIRT_INTERFACES" => Unsupported("what arrives there is not redirected to Envoy; see workload.container"),
        "ISTIOD_SAN" => Unsupported("istiod's certificate must have the name that it is called by"),
        "CREDENTIAL_FETCHER_TYPE" | "JWT_POLICY" => Unsupported("the token is the bundle's istio-token"),
        "FORCE_IPTABLES_BINARY" | "NATIVE_NFTABLES" => Unsupported("see intercept.backend"),
        _ => Unsupported("is not known to this agent"),
    }
}

fn flag_notes(text: &str, imported: &mut ImportedConfig) -> Vec<Note> {
    let mut note = |(flag, value): (&str, &str)| {
        let (taken, detail) = match flag {
            "--proxyLogLevel" => log_level(value, imported),
            "--domain" => domain(value, imported),
            "--concurrency" => match value.parse() {
                Ok(0) => (true, "is one thread per core, as envoy.concurrency is by default"),
                Ok(threads) => {
                    imported.concurrency = Some(threads);
                    (true, "is envoy.concurrency")
                }
                Err(_) => (false, "is no number"),
            },
            "--log_output_level" => (false, "see log.level"),
            _ => (false, "is not known to this agent"),
        };
        Note {
            setting: format!("ISTIO_AGENT_FLAGS: {flag} {value}").trim_end().to_owned(),
            taken,
            detail: detail.to_owned(),
        }
    };
    flags::parse(text).into_iter().map(&mut note).collect()
}

/// Envoy's level, without those of its components, which have no key here.
fn log_level(value: &str, imported: &mut ImportedConfig) -> (bool, &'static str) {
    let mut levels = value.split(',').map(str::trim);
    let whole = levels.clone().find(|level| !level.contains(':')).unwrap_or_default();
    // Envoy has both words (spdlog).
    let known = match whole {
        "warn" => "warning",
        "err" => "error",
        whole => whole,
    };
    let has_components = levels.any(|level| level.contains(':'));
    if !ENVOY_LEVELS.contains(&known) {
        return match has_components && whole.is_empty() {
            true => (
                false,
                "levels of components have no key here; `envoy.log_level` is that of all",
            ),
            false => (false, "is no level of Envoy's"),
        };
    }
    imported.log_level = Some(known.to_owned());
    match has_components {
        true => (
            true,
            "is envoy.log_level, but for the levels of components, which have no key here",
        ),
        false => (true, "is envoy.log_level"),
    }
}

/// `<namespace>.svc.<domain>`.
fn domain(value: &str, imported: &mut ImportedConfig) -> (bool, &'static str) {
    match value.split_once(".svc.") {
        Some((namespace, domain)) if !namespace.contains('.') && !domain.is_empty() => {
            imported.cluster_domain = Some(domain.to_owned());
            (true, "is network.cluster_domain")
        }
        _ => (
            false,
            "is no namespace.svc.domain, of which network.cluster_domain would be the end",
        ),
    }
}
