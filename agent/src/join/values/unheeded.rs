//! Settings that Istio's own agent would follow and this one does not: refused where the VM would be another without
//! it, else said. A name that is nearly one of Istio's is taken for a slip.

use serde_json::Value;

use super::{Values, wrong_field};
use crate::config::{ConfigError, nearest_slip};
use crate::join::known::{FIELDS, METADATA, TRACING, VARIABLES};
use crate::join::readiness_probe;

/// The variables that this agent has no way to obey; the values that mean what it does anyway; what to do instead.
const REFUSED: [(&str, &[&str], &str); 15] = [
    ("ENVOY_USER", &["istio-proxy"], OWN_USER),
    ("EXEC_USER", &["istio-proxy"], OWN_USER),
    ("PROXY_UID", &["1337"], OWN_USER),
    ("PROXY_GID", &["1337"], OWN_USER),
    (
        "ISTIO_CUSTOM_IP_TABLES",
        &["false"],
        "this agent leaves the rules to you where the configuration has intercept.backend = \"none\": write that there, and \
         remove it here",
    ),
    (
        "KUBE_VIRT_INTERFACES",
        &[],
        "what arrives there isn't taken for outbound: remove it; a container's calls go through Envoy by workload.container",
    ),
    ("PILOT_ADDRESS", &[], ADDRESSES),
    ("ISTIO_PILOT_PORT", &[], ADDRESSES),
    (
        "ISTIOD_SAN",
        &[],
        "istiod's certificate must have the name that it is called by: add this name to istiod's ISTIOD_CUSTOM_HOST, and \
         remove it here",
    ),
    (
        "ISTIO_CP_AUTH",
        &["MUTUAL_TLS"],
        "istiod is spoken to over TLS only: remove it",
    ),
    (
        "CA_PROVIDER",
        &["Citadel"],
        "only Istio's own protocol is spoken to a CA, by istiod and istio-csr: remove it, and name the CA in CA_ADDR",
    ),
    ("XDS_ROOT_CA", &[], ROOTS),
    ("CA_ROOT_CA", &[], ROOTS),
    (
        "FILE_MOUNTED_CERTS",
        &["false"],
        "the certificate comes from the CA, and from no file: remove it",
    ),
    (
        "PROXY_CONFIG",
        &[],
        "write its fields below defaultConfig of mesh.yaml, and remove it here",
    ),
];

const OWN_USER: &str =
    "Envoy runs as user and group istio-proxy, 1337, for by that its packets are told from others: remove it";
const ADDRESSES: &str = "write istiod's address into control_plane.addresses of the configuration, and remove it here";
const ROOTS: &str = "put those certificates into root-cert.pem beside the others, and remove it here";

/// Variables without which little is different, and what takes their place.
const SAID: [(&str, &str); 9] = [
    ("SECRET_TTL", "identity.ttl of the configuration says it"),
    ("POD_NAME", "network.name of the configuration says it"),
    (
        "ISTIO_AGENT_FLAGS",
        "they are flags of Istio's own agent; `istio-vm-agent import` makes keys of them",
    ),
    ("ISTIO_BIN_BASE", "envoy.binary of the configuration says it"),
    ("WORKLOAD_RSA_KEY_SIZE", "identity.key of the configuration says it"),
    ("ECC_SIGNATURE_ALGORITHM", "identity.key of the configuration says it"),
    ("MINIMUM_DRAIN_DURATION", "envoy.drain of the configuration says it"),
    (
        "EXIT_ON_ZERO_ACTIVE_CONNECTIONS",
        "a stop always waits for connections to end",
    ),
    (
        "OUTPUT_CERTS",
        "the certificate is given to Envoy, and is written to no file but the agent's own",
    ),
];

/// Fields of ProxyConfig that only Envoy's bootstrap by Istio's own agent has, and what to do instead.
const REFUSED_FIELDS: [(&str, &str); 8] = [
    ("statsdUdpAddress", "Envoy's statistics are had from port 15090 only"),
    ("zipkinAddress", TRACER),
    ("envoyMetricsService", "Envoy's statistics are had from port 15090 only"),
    (
        "envoyAccessLogService",
        "have istiod configure it, as a provider of the Telemetry API",
    ),
    ("customConfigFile", "the agent makes Envoy's bootstrap itself"),
    ("proxyBootstrapTemplatePath", "the agent makes Envoy's bootstrap itself"),
    ("privateKeyProvider", "the key is handed to Envoy as it is"),
    (
        "proxyAdminPort",
        "Envoy's admin interface is a socket for root, and a port where envoy.admin_port of the configuration has one",
    ),
];
const TRACER: &str = "have istiod configure the tracer, as a provider of the Telemetry API";
/// Members of `tracing` that need a tracer in Envoy's bootstrap; istiod does the rest.
const TRACERS: [&str; 6] = [
    "zipkin",
    "lightstep",
    "datadog",
    "stackdriver",
    "openCensusAgent",
    "tlsSettings",
];

impl Values<'_> {
    /// Fails for values without which the VM would be another.
    pub(in crate::join) fn is_heeded(&self) -> Result<(), ConfigError> {
        let errors = self.wrong_variables().into_iter().chain(self.wrong_fields());
        ConfigError::all(errors).map_or(Ok(()), Err)
    }

    /// Settings that this agent does not follow, each with its place and what takes its place.
    pub(in crate::join) fn unheeded(&self) -> Vec<String> {
        let said = SAID
            .iter()
            .filter(|(key, _)| self.metadata(key).is_some_and(|value| !value.is_empty()));
        let said = said.map(|(key, instead)| {
            let problem = format!("is not heeded: {instead}");
            self.wrong_metadata(key, problem).to_string()
        });
        let probe = self.proxy_config.0.get("readinessProbe").into_iter();
        let dropped = probe.flat_map(readiness_probe::dropped).map(|field| {
            let problem = format!("{field} is not heeded: this agent knows no such field of a probe");
            wrong_field(self.bundle, "readinessProbe", problem).to_string()
        });
        self.bundle
            .unheeded
            .iter()
            .cloned()
            .chain(said)
            .chain(dropped)
            .collect()
    }

    fn wrong_variables(&self) -> Vec<ConfigError> {
        let metadata = self.proxy_config.metadata();
        let names = self
            .bundle
            .env
            .keys()
            .chain(metadata.keys().filter(|key| self.env(key).is_none()));
        names
            .filter_map(|name| {
                let value = self.metadata(name).filter(|value| !value.is_empty())?;
                let problem = refused(name, value).or_else(|| slip(name))?;
                Some(self.wrong_metadata(name, problem))
            })
            .collect()
    }

    fn wrong_fields(&self) -> Vec<ConfigError> {
        let fields = self.proxy_config.0.iter().filter(|(_, value)| !is_empty(value));
        let problem = |(field, value): (&String, &Value)| {
            let problem = match field.as_str() {
                "proxyAdminPort" if *value == 15000 => None,
                "tracing" => tracing(value),
                field => REFUSED_FIELDS
                    .iter()
                    .find(|(name, _)| *name == field)
                    .map(|(_, instead)| unsupported(instead)),
            };
            let slip = || nearest_slip(field, FIELDS).map(|known| format!("is unknown: did you mean {known:?}?"));
            Some(wrong_field(self.bundle, field, problem.or_else(slip)?))
        };
        fields.filter_map(problem).collect()
    }
}

/// The problem of a field that this agent has no way to obey.
fn unsupported(instead: &str) -> String {
    format!(
        "is not done by this agent: {instead}; remove it from the mesh's defaultConfig, or set it to nothing for this VM's \
         group, by the annotation proxy.istio.io/config of the WorkloadGroup"
    )
}

fn tracing(value: &Value) -> Option<String> {
    let members = value.as_object()?;
    let written = members.iter().find(|(member, value)| {
        let plain = crate::join::camel_case::camel_case(member);
        TRACERS.contains(&plain.as_str()) && !value.is_null()
    });
    if let Some((member, _)) = written {
        return Some(format!("{member} {}", unsupported(TRACER)));
    }
    let slip = |member: &String| Some((member.clone(), nearest_slip(member, TRACING)?));
    let (member, known) = members.keys().find_map(slip)?;
    Some(format!("{member} is unknown: did you mean {known:?}?"))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

fn refused(name: &str, value: &str) -> Option<String> {
    let (_, fine, instead) = REFUSED.iter().find(|(refused, ..)| *refused == name)?;
    (!fine.contains(&value)).then(|| format!("{value:?} is not done on this VM: {instead}"))
}

/// A variable that is nearly one of Istio's; the operator's own are none of ours.
fn slip(name: &str) -> Option<String> {
    let known = match name.strip_prefix("ISTIO_META_") {
        Some(key) => nearest_slip(key, METADATA).map(|known| format!("ISTIO_META_{known}")),
        None => nearest_slip(name, VARIABLES).map(str::to_owned),
    };
    known.map(|known| format!("is unknown: did you mean {known}?"))
}
