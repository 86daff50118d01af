//! Settings of a membership, and where each value is from: for people who look for the one that is wrong.

use serde_json::{Value, json};

use super::bundle::Bundle;
use super::known;
use super::root_certs;
use crate::config::{Config, DEFAULT, NOT_SHOWN, ProbeConfig, Setting, hide_secrets};
use crate::facts::Membership;

/// The origin of what the VM itself says.
const DISCOVERED: &str = "discovered on this VM";
/// The origin of what Istio means by nothing.
const ISTIO: &str = "Istio's default";
/// Variables of Istio's that may hold whatever was written into a ProxyConfig.
const HIDDEN: [&str; 3] = ["PROXY_CONFIG", "ISTIO_META_PROXY_CONFIG", "ISTIO_METAJSON_ANNOTATIONS"];
/// Settings that the variables of a bundle become.
const VARIABLES: [(&str, &str); 12] = [
    ("namespace", "POD_NAMESPACE"),
    ("service_account", "SERVICE_ACCOUNT"),
    ("trust_domain", "TRUST_DOMAIN"),
    ("inbound_ports", "ISTIO_INBOUND_PORTS"),
    ("exclude_ports", "ISTIO_LOCAL_EXCLUDE_PORTS"),
    ("exclude_interfaces", "ISTIO_EXCLUDE_INTERFACES"),
    ("outbound.networks", "ISTIO_SERVICE_CIDR"),
    ("outbound.exclude_networks", "ISTIO_SERVICE_EXCLUDE_CIDR"),
    ("outbound.ports", "ISTIO_OUTBOUND_PORTS"),
    ("outbound.exclude_ports", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"),
    ("outbound.groups", "ISTIO_OUTBOUND_OWNER_GROUPS"),
    ("outbound.exclude_groups", "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE"),
];

/// All of it.
pub(super) fn of(bundle: &Bundle, config: &Config, membership: &Membership) -> Vec<Setting> {
    let places = Places { bundle, config };
    let mut settings = places.of_this_vm(membership);
    settings.extend(places.of_the_mesh(membership));
    settings.extend(VARIABLES.map(|(name, key)| Setting::new(name, effective(name, membership), places.variable(key))));
    let mut proxy_config = membership.proxy_config.0.clone();
    hide_secrets(&mut proxy_config);
    let fields = proxy_config.into_iter().filter(|(field, _)| *field != "proxyMetadata");
    settings.extend(fields.map(|(field, value)| {
        let key = format!("defaultConfig.{field}");
        Setting::new(format!("proxy_config.{field}"), value, places.field(&key))
    }));
    let metadata = membership.proxy_config.metadata();
    settings.extend(
        metadata
            .iter()
            .filter(|(key, _)| !membership.env.contains_key(*key))
            .map(|(key, value)| {
                let origin = places.field(&format!("defaultConfig.proxyMetadata.{key}"));
                Setting::new(format!("env.{key}"), shown(key, value), origin)
            }),
    );
    let env = membership.env.iter();
    settings
        .extend(env.map(|(key, value)| Setting::new(format!("env.{key}"), shown(key, value), places.variable(key))));
    settings
}

struct Places<'a> {
    bundle: &'a Bundle,
    config: &'a Config,
}

impl Places<'_> {
    /// Who this VM is.
    fn of_this_vm(&self, membership: &Membership) -> Vec<Setting> {
        let ips: Vec<String> = membership.instance_ips.iter().map(ToString::to_string).collect();
        let name = self.first("network.name", &[], DISCOVERED);
        let address = self.first("network.address", &["ISTIO_SVC_IP"], DISCOVERED);
        let token = match membership.token_file {
            Some(_) => "the bundle",
            None => "asked of the join source",
        };
        let (probe, _) = self.config.health.choose(membership.probe.as_ref()).unzip();
        let probed = match self.config.places.of("health.probe") {
            Some(place) => place.to_string(),
            None => self.field("defaultConfig.readinessProbe"),
        };
        vec![
            Setting::new("name", membership.node_name.as_str(), name),
            Setting::new("addresses", ips, address),
            Setting::new("token_file", json!(membership.token_file), token),
            Setting::new("probe", json!(probe.map(ProbeConfig::<1>)), probed),
        ]
    }

    /// Where the mesh is, and what it wants of all.
    fn of_the_mesh(&self, membership: &Membership) -> Vec<Setting> {
        let origins = &self.bundle.origins;
        let hosts = membership.hosts.iter().flat_map(|entry| {
            let ip = entry.ip.to_string();
            entry.names.iter().map(move |name| format!("{ip} {name}"))
        });
        let hosts: Vec<String> = hosts.collect();
        let id = self.first("", &["ISTIO_META_CLUSTER_ID"], "absent");
        let domain = self.first("network.cluster_domain", &[], DEFAULT);
        let discovery = match self.config.places.of("control_plane.addresses") {
            Some(place) => place.to_string(),
            None => self.field("defaultConfig.discoveryAddress"),
        };
        let authority = self.first("", &["CA_ADDR"], "that of istiod");
        let dns = self.first("", &["ISTIO_META_DNS_CAPTURE"], ISTIO);
        vec![
            Setting::new("cluster_id", membership.cluster_id.as_str(), id),
            Setting::new("cluster_domain", membership.cluster_domain.as_str(), domain),
            Setting::new("discovery_address", membership.discovery_address.as_str(), discovery),
            Setting::new("ca_address", membership.ca_address.as_str(), authority),
            Setting::new("dns_capture", membership.dns_capture, dns),
            Setting::new("roots", root_certs::subjects(&membership.roots_pem), &origins.roots),
            Setting::new("hosts", hosts, &origins.hosts),
        ]
    }

    /// The first that is written: a key of the configuration, variables; else `otherwise`.
    fn first(&self, key: &str, variables: &[&str], otherwise: &str) -> String {
        let place = self.config.places.of(key).map(ToString::to_string);
        let mut written = variables.iter().filter_map(|key| self.written(key));
        place.or_else(|| written.next()).unwrap_or_else(|| otherwise.to_owned())
    }

    fn variable(&self, key: &str) -> String {
        self.written(key).unwrap_or_else(|| ISTIO.to_owned())
    }

    fn written(&self, key: &str) -> Option<String> {
        let (env, field) = (&self.bundle.origins.env, format!("defaultConfig.proxyMetadata.{key}"));
        match self.bundle.env.get(key) {
            Some(value) if !value.is_empty() => Some(format!("{} {key}", env.place(key))),
            _ if self.bundle.origins.proxy_config.has(&field) => Some(self.field(&field)),
            _ => None,
        }
    }

    fn field(&self, key: &str) -> String {
        let origin = &self.bundle.origins.proxy_config;
        match origin.has(key) {
            true => origin.place(key).to_string(),
            false => ISTIO.to_owned(),
        }
    }
}

fn effective(name: &str, membership: &Membership) -> Value {
    let outbound = &membership.outbound;
    let all = |list: Option<Value>| list.unwrap_or_else(|| json!("*"));
    match name {
        "namespace" => json!(membership.spiffe_id.namespace),
        "service_account" => json!(membership.spiffe_id.service_account),
        "trust_domain" => json!(membership.spiffe_id.trust_domain),
        "inbound_ports" => all(membership.inbound_ports.as_ref().map(|ports| json!(ports))),
        "exclude_ports" => json!(membership.exclude_ports),
        "exclude_interfaces" => json!(membership.exclude_interfaces),
        "outbound.networks" => all(outbound.networks.as_ref().map(|networks| json!(text(networks)))),
        "outbound.exclude_networks" => json!(text(&outbound.exclude_networks)),
        "outbound.ports" => json!(outbound.ports),
        "outbound.exclude_ports" => json!(outbound.exclude_ports),
        "outbound.groups" => all(outbound.groups.as_ref().map(|groups| json!(groups))),
        _ => json!(outbound.exclude_groups),
    }
}

fn text<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

/// The value of a variable that Istio knows; any other may be a secret.
fn shown(key: &str, value: &str) -> Value {
    let is_known = match key.strip_prefix("ISTIO_META_") {
        Some(key) => known::METADATA.contains(&key),
        None => known::VARIABLES.contains(&key),
    };
    match is_known && !HIDDEN.contains(&key) {
        true => json!(value),
        false => json!(NOT_SHOWN),
    }
}
