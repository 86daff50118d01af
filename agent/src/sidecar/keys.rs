//! Each setting of Istio's own agent, and what becomes of it here.

use std::time::Duration;

use super::flags;
use super::settings::{Note, Settings};
use crate::config::LONGEST;

/// What the configuration file says beside where the bundle is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Draft {
    pub(super) addresses: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) no_rules: bool,
    pub(super) binary: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) concurrency: Option<u32>,
}

enum Fate {
    /// This agent reads it in cluster.env, too.
    Bundle,
    /// It is a key of the configuration.
    Key(
        &'static str,
        fn(&mut Draft, &str, &Settings) -> Result<(), &'static str>,
    ),
    /// Nothing is different without it.
    Moot(&'static str),
    /// Something is.
    Lost(&'static str),
}

/// What becomes of all of them; what is a key of the configuration goes into `draft`. Those of cluster.env that are
/// read from there are not worth a word.
pub(super) fn notes(settings: &Settings, draft: &mut Draft) -> Vec<Note> {
    let mut notes = Vec::new();
    for (key, value) in settings.iter().filter(|(_, value)| !value.is_empty()) {
        let setting = format!("{key}={value}");
        let (taken, detail) = match fate(key, value) {
            Fate::Bundle if settings.is_only_in_sidecar_env(key) => (true, "is in the bundle's cluster.env".to_owned()),
            Fate::Bundle => continue,
            Fate::Key(name, put) => match put(draft, value, settings) {
                Ok(()) => (true, format!("is {name}")),
                Err(problem) => (false, problem.to_owned()),
            },
            Fate::Moot(why) => (true, why.to_owned()),
            Fate::Lost(why) => (false, why.to_owned()),
        };
        if key == "ISTIO_AGENT_FLAGS" {
            notes.extend(flag_notes(value, draft));
        } else {
            notes.push(Note { setting, taken, detail });
        }
    }
    notes
}

/// Those that this agent's bundle has the same meaning for.
pub(super) fn is_for_the_bundle(key: &str) -> bool {
    const NAMES: [&str; 15] = [
        "ISTIO_INBOUND_PORTS",
        "ISTIO_LOCAL_EXCLUDE_PORTS",
        "ISTIO_SERVICE_CIDR",
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
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

fn fate(key: &str, value: &str) -> Fate {
    use Fate::Key;
    match key {
        _ if is_for_the_bundle(key) => Fate::Bundle,
        "PILOT_ADDRESS" | "ISTIO_PILOT_PORT" => Key("control_plane.addresses", |draft, _, settings| {
            draft.addresses = settings.pilot_address().into_iter().collect();
            Ok(())
        }),
        "POD_NAME" => Key("network.name", |draft, value, _| {
            draft.name = Some(value.to_owned());
            Ok(())
        }),
        "SECRET_TTL" => Key("identity.ttl", |draft, value, _| {
            let ttl = humantime::parse_duration(value).ok().filter(|ttl| *ttl <= LONGEST);
            draft.ttl = Some(ttl.ok_or("is not a duration that this agent reads")?);
            Ok(())
        }),
        "ISTIO_CUSTOM_IP_TABLES" if value == "true" => Key("intercept.backend", |draft, _, _| {
            draft.no_rules = true;
            Ok(())
        }),
        "ISTIO_BIN_BASE" => Key("envoy.binary", |draft, value, _| {
            draft.binary = Some(format!("{}/envoy", value.trim_end_matches('/')));
            Ok(())
        }),
        _ => without(key, value),
    }
}

/// What has no place here.
fn without(key: &str, value: &str) -> Fate {
    use Fate::{Lost, Moot};
    match key {
        "ISTIO_SYSTEM_NAMESPACE" => Moot("is part of istiod's name"),
        "ISTIO_CUSTOM_IP_TABLES" => Moot("is what intercept.backend is by default"),
        "ISTIO_INBOUND_INTERCEPTION_MODE" if value != "TPROXY" => Moot("is what this agent does"),
        "ISTIO_CP_AUTH" if value == "MUTUAL_TLS" => Moot("is what this agent does"),
        "ISTIO_DUAL_STACK" | "DUAL_STACK" => Moot("IPv6 is redirected wherever the VM has it"),
        "ISTIO_INBOUND_TPROXY_MARK" | "ISTIO_INBOUND_TPROXY_ROUTE_TABLE" => Moot("only TPROXY needs it"),
        "ISTIO_INBOUND_EXCLUDE_PORTS" | "ENVOY_PORT" | "ISTIO_CFG" => Moot("Istio's own agent doesn't read it either"),
        "PROV_CERT" | "OUTPUT_CERTS" => Moot("is where the certificate was taken from; this agent keeps its own"),
        "ISTIO_AGENT_FLAGS" => Moot("is told flag by flag"),

        "ISTIO_INBOUND_INTERCEPTION_MODE" => Lost("the application sees 127.0.0.6 as the caller's address"),
        "ISTIO_LOG_DIR" => Lost("the log is in the journal: journalctl -u istio-vm-agent"),
        "ISTIO_CP_AUTH" => Lost("istiod is spoken to over TLS only"),
        "PROXY_CONFIG" => Lost("write its fields into defaultConfig of the bundle's mesh.yaml"),
        "ENVOY_USER" | "EXEC_USER" => Lost("Envoy runs as istio-proxy (1337)"),
        "ISTIO_EXCLUDE_INTERFACES" => Lost("traffic of these interfaces is redirected like any other"),
        "KUBE_VIRT_INTERFACES" => Lost("what arrives there is not redirected to Envoy; see workload.container"),
        "ISTIO_OUTBOUND_PORTS" => Lost("only ISTIO_SERVICE_CIDR says what of the outbound traffic is redirected"),
        "ISTIO_OUTBOUND_OWNER_GROUPS" | "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE" => {
            Lost("outbound traffic is redirected whatever its group")
        }
        "ISTIOD_SAN" => Lost("istiod's certificate must have the name that it is called by"),
        "CREDENTIAL_FETCHER_TYPE" | "JWT_POLICY" => Lost("the token is the bundle's istio-token"),
        "FORCE_IPTABLES_BINARY" | "NATIVE_NFTABLES" => Lost("see intercept.backend"),
        _ => Lost("is not known to this agent"),
    }
}

fn flag_notes(text: &str, draft: &mut Draft) -> Vec<Note> {
    let mut note = |(flag, value): (&str, &str)| {
        let (taken, detail) = match flag {
            "--proxyLogLevel" => {
                draft.log_level = Some(value.to_owned());
                (true, "is envoy.log_level")
            }
            "--concurrency" => match value.parse() {
                Ok(threads) => {
                    draft.concurrency = Some(threads);
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
