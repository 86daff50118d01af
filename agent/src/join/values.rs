//! The values of a membership, key by key, from all parts of a bundle together; contradictions are errors.

mod capture;
mod node_metadata;
mod unheeded;

use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};

use crate::config::{Config, ConfigError, mesh_address};
use crate::facts::kubernetes_name::{is_dns_label, is_kubernetes_name};
use crate::facts::{HostEntry, HostPort, Probe, ProxyConfig, SpiffeId};

use super::addresses::Machine;
use super::bundle::{Bundle, told_together};
use super::names::Names;
use super::{hosts_lines, proxy_config, readiness_probe};

/// A route is the same for all ports.
const ANY_PORT: u16 = 9;
const REMAKE: &str = "the files are of different bundles; make them again together";

/// A bundle whose ProxyConfig is checked.
pub(super) struct Values<'a> {
    bundle: &'a Bundle,
    /// The effective one, Istio's defaults included.
    pub(super) proxy_config: ProxyConfig,
}

impl<'a> Values<'a> {
    pub(super) fn of(bundle: &'a Bundle) -> Result<Self, ConfigError> {
        let service = bundle.env.get("ISTIO_SERVICE").map(String::as_str);
        let proxy_config = proxy_config::effective(&bundle.proxy_config, service)
            .map_err(|error| wrong_field(bundle, &error.field, error.problem))?;
        Ok(Self { bundle, proxy_config })
    }

    fn env(&self, key: &str) -> Option<&str> {
        self.bundle.env.get(key).map(String::as_str)
    }

    /// An error about a key of cluster.env.
    fn wrong(&self, key: &str, problem: impl Display) -> ConfigError {
        self.bundle.origins.env.key_error(key, problem)
    }

    /// A key of `proxyMetadata`.
    fn proxy_metadata(&self, key: &str) -> Option<&str> {
        self.proxy_config.0.get("proxyMetadata")?.get(key)?.as_str()
    }

    /// cluster.env's value, else mesh.yaml's.
    pub(super) fn metadata(&self, key: &str) -> Option<&str> {
        self.env(key).or_else(|| self.proxy_metadata(key))
    }

    /// An error about what `metadata` gave, where it is from.
    fn wrong_metadata(&self, key: &str, problem: impl Display) -> ConfigError {
        match self.env(key) {
            Some(_) => self.wrong(key, problem),
            None => wrong_field(self.bundle, &format!("proxyMetadata.{key}"), problem),
        }
    }

    /// A value that istioctl always writes, and writes to both files.
    fn identity(&self, key: &str) -> Result<&str, ConfigError> {
        let value = self.env(key).ok_or_else(|| {
            self.wrong(
                key,
                "is missing: the file is truncated, or is not the cluster.env that istioctl writes",
            )
        })?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        let (is_name, signs) = match key {
            "POD_NAMESPACE" => (is_dns_label(value), "lower-case letters, digits and '-'"),
            "SERVICE_ACCOUNT" => (is_kubernetes_name(value), "lower-case letters, digits, '-' and '.'"),
            _ => (
                !value.is_empty() && value.bytes().all(is_plain),
                "letters, digits, '.', '-' and '_'",
            ),
        };
        if !is_name {
            let problem = format!("{value:?} is not a name: {signs} only; make the bundle again");
            return Err(self.wrong(key, problem));
        }
        match self.proxy_metadata(key) {
            Some(other) if other != value => {
                let origin = &self.bundle.origins.proxy_config;
                let place = origin.place(&format!("defaultConfig.proxyMetadata.{key}"));
                Err(self.wrong(key, format!("is {value:?} here and {other:?} in {place}: {REMAKE}")))
            }
            _ => Ok(value),
        }
    }

    pub(super) fn spiffe_id(&self) -> Result<SpiffeId, ConfigError> {
        let parts = ["POD_NAMESPACE", "TRUST_DOMAIN", "SERVICE_ACCOUNT"].map(|key| self.identity(key));
        let [Ok(namespace), Ok(trust_domain), Ok(service_account)] = parts else {
            return Err(told_together(parts.map(Result::err)));
        };
        match self.env("ISTIO_NAMESPACE") {
            Some(other) if other != namespace => Err(self.wrong(
                "POD_NAMESPACE",
                format!("is {namespace:?}, and ISTIO_NAMESPACE is {other:?}: {REMAKE}"),
            )),
            _ => Ok(SpiffeId {
                trust_domain: trust_domain.to_owned(),
                namespace: namespace.to_owned(),
                service_account: service_account.to_owned(),
            }),
        }
    }

    pub(super) fn discovery_address(&self, config: &Config) -> Result<String, ConfigError> {
        if let Some(first) = config.control_plane.addresses.first() {
            return Ok(first.clone());
        }
        let address = self.proxy_config.str("discoveryAddress").unwrap_or_default();
        HostPort::check_encrypted(address)
            .map(|_| address.to_owned())
            .map_err(|problem| wrong_field(self.bundle, "discoveryAddress", problem))
    }

    pub(super) fn ca_address(&self, discovery_address: &str) -> Result<String, ConfigError> {
        let address = self.env("CA_ADDR").filter(|address| !address.is_empty());
        let address = address.unwrap_or(discovery_address);
        HostPort::check_encrypted(address)
            .map(|_| address.to_owned())
            .map_err(|problem| self.wrong("CA_ADDR", problem))
    }

    /// The entries of istiod first.
    pub(super) fn hosts(&self, config: &Config, discovery_address: &str) -> Result<Vec<HostEntry>, ConfigError> {
        let own = self.proxy_config.str("discoveryAddress");
        let addresses: Vec<&str> = own.into_iter().chain(self.env("CA_ADDR")).collect();
        let needed = Names::new(config, &addresses);
        let mut entries = self.bundle.hosts.clone();
        let origin = &self.bundle.origins.hosts;
        hosts_lines::check(&entries, |name| needed.allows(name))
            .map_err(|(index, problem)| ConfigError::about(origin.place(&index.to_string()), problem))?;
        let istiod = HostPort::host_of(discovery_address);
        if !entries.iter().any(|entry| names(entry, istiod)) && istiod.parse::<IpAddr>().is_err() {
            tracing::warn!("{origin} has no line for {istiod}: the VM's own resolver must know it");
        }
        entries.sort_by_key(|entry| !names(entry, istiod));
        Ok(entries)
    }

    pub(super) fn instance_ips(
        &self,
        config: &Config,
        machine: &Machine,
        discovery_address: &String,
        hosts: &[HostEntry],
    ) -> Result<Vec<IpAddr>, ConfigError> {
        const KEY: &str = "ISTIO_SVC_IP";
        let from_env = match self.env(KEY).filter(|ip| !ip.is_empty()) {
            Some(text) => {
                let ip: IpAddr = text
                    .parse()
                    .map_err(|_| self.wrong(KEY, format!("{text:?} is not an IP address, such as 10.200.0.3")))?;
                mesh_address::check(ip).map_err(|problem| self.wrong(KEY, format!("{text:?} {problem}")))?;
                Some(ip)
            }
            None => None,
        };
        let configured = &config.control_plane.addresses;
        let control_planes = match configured.is_empty() {
            true => std::slice::from_ref(discovery_address),
            false => configured,
        };
        let peers: Vec<String> = control_planes
            .iter()
            .flat_map(|address| peers(address, hosts))
            .collect();
        let addresses = machine.mesh_addresses(config.network.address.or(from_env), &peers);
        if addresses.is_empty() {
            let problem = "is not set, and no interface that is up has an address that others can call: \
                           set network.address in the configuration";
            return Err(self.wrong(KEY, problem).passing());
        }
        Ok(addresses)
    }

    /// A boolean; empty or absent is false.
    pub(super) fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        flag(self.metadata(key).unwrap_or_default()).map_err(|problem| self.wrong_metadata(key, problem))
    }

    pub(super) fn probe(&self) -> Result<Option<Probe>, ConfigError> {
        const FIELD: &str = "readinessProbe";
        let localhost = self.flag("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION")?;
        let Some(value) = self.proxy_config.0.get(FIELD) else {
            return Ok(None);
        };
        readiness_probe::parse(value, localhost)
            .map(Some)
            .map_err(|problem| wrong_field(self.bundle, FIELD, problem))
    }
}

/// A boolean as Go's strconv.ParseBool reads it; nothing is false.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        other => Err(format!("{other:?} is neither true nor false: write one of them")),
    }
}

/// Addresses of a control plane, as far as the bundle has them; else its name, for the VM's resolver.
fn peers(address: &str, hosts: &[HostEntry]) -> Vec<String> {
    let known = hosts.iter().filter(|entry| names(entry, HostPort::host_of(address)));
    let known: Vec<String> = known
        .map(|entry| SocketAddr::new(entry.ip, ANY_PORT).to_string())
        .collect();
    match known.is_empty() {
        true => vec![address.to_owned()],
        false => known,
    }
}

/// An error about a field of mesh.yaml's `defaultConfig`.
fn wrong_field(bundle: &Bundle, field: &str, problem: impl Display) -> ConfigError {
    let key = format!("defaultConfig.{field}");
    bundle.origins.proxy_config.key_error(&key, problem)
}

fn names(entry: &HostEntry, host: &str) -> bool {
    entry.names.iter().any(|name| name.eq_ignore_ascii_case(host))
}
