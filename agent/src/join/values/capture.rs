//! The traffic that goes through Envoy, as a bundle says: ports, networks, and by which means.

use super::{Values, wrong_field};
use crate::config::{self, Backend, Config, ConfigError};
use crate::facts::{OutboundCapture, outbound};
use crate::join::ports;

const EXCLUDE_PORTS: &str = "ISTIO_LOCAL_EXCLUDE_PORTS";
/// The only one that this agent has rules for.
const MODE: &str = "REDIRECT";

impl Values<'_> {
    /// The ports that are captured, none of them the mesh's own, and with them all that `config` publishes.
    pub(in crate::join) fn inbound_ports(
        &self,
        config: &Config,
        excluded: &[u16],
    ) -> Result<Option<Vec<u16>>, ConfigError> {
        const KEY: &str = "ISTIO_INBOUND_PORTS";
        let missing = "is missing: write '*' for all ports, a list such as '3550,8080', or '' for none";
        let captured = match self.env(KEY).map(str::trim) {
            Some("*") => None,
            Some(list) => Some(ports::parse(list).map_err(|problem| self.wrong(KEY, problem))?),
            None => return Err(self.wrong(KEY, missing)),
        };
        for port in captured.iter().flatten() {
            config::ports::check_free(*port).map_err(|problem| self.wrong(KEY, problem))?;
        }
        let is_captured = |port: u16| match &captured {
            Some(ports) => ports.contains(&port),
            None => !excluded.contains(&port),
        };
        match published(config).find(|port| !is_captured(*port)) {
            None => Ok(captured),
            Some(port) => Err(self.wrong(
                match captured {
                    Some(_) => KEY,
                    None => EXCLUDE_PORTS,
                },
                format!(
                    "leaves port {port} alone, which workload.container.ports publishes: calls to it would go past Envoy \
                     and the mesh's policy; have it captured (a port of the WorkloadGroup is), or publish it no more"
                ),
            )),
        }
    }

    pub(in crate::join) fn exclude_ports(&self) -> Result<Vec<u16>, ConfigError> {
        match self.env(EXCLUDE_PORTS) {
            Some(list) => ports::parse(list).map_err(|problem| self.wrong(EXCLUDE_PORTS, problem)),
            None => Ok(ports::DEFAULT_EXCLUDED.to_vec()),
        }
    }

    pub(in crate::join) fn outbound(&self) -> Result<OutboundCapture, ConfigError> {
        const EXCLUDE: &str = "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE";
        let networks = |key: &str| {
            let list = self.env(key).unwrap_or_default();
            outbound::networks(list).map_err(|problem| self.wrong(key, problem))
        };
        let is_all = self.env("ISTIO_SERVICE_CIDR").is_none_or(|list| list.trim() == "*");
        Ok(OutboundCapture {
            networks: (!is_all).then(|| networks("ISTIO_SERVICE_CIDR")).transpose()?,
            exclude_networks: networks("ISTIO_SERVICE_EXCLUDE_CIDR")?,
            exclude_ports: ports::parse(self.env(EXCLUDE).unwrap_or_default())
                .map_err(|problem| self.wrong(EXCLUDE, problem))?,
        })
    }

    /// Checks that no part of the bundle wants another means of interception than redirection. With another mode istiod
    /// would give Envoy listeners that it can't open.
    pub(in crate::join) fn is_redirected(&self) -> Result<(), ConfigError> {
        let problem = |mode: &str| {
            format!("{mode:?} is not done on this VM: calls are redirected to Envoy, so remove it, or write {MODE}")
        };
        let others = |mode: &&str| !mode.is_empty() && !mode.eq_ignore_ascii_case(MODE);
        for key in ["ISTIO_INBOUND_INTERCEPTION_MODE", "ISTIO_META_INTERCEPTION_MODE"] {
            if let Some(mode) = self.env(key).filter(others) {
                return Err(self.wrong(key, problem(mode)));
            }
            if let Some(mode) = self.proxy_metadata(key).filter(others) {
                return Err(wrong_field(self.bundle, &format!("proxyMetadata.{key}"), problem(mode)));
            }
        }
        match self.proxy_config.0.get("interceptionMode") {
            None => Ok(()),
            Some(mode) if mode == MODE => Ok(()),
            Some(mode) => {
                let mode = mode.as_str().map_or_else(|| mode.to_string(), str::to_owned);
                Err(wrong_field(self.bundle, "interceptionMode", problem(&mode)))
            }
        }
    }
}

/// Ports of the VM that lead into the container, where the agent has any say in who gets there.
fn published(config: &Config) -> impl Iterator<Item = u16> {
    let container = config.workload.container.as_ref();
    let container = container.filter(|_| config.intercept.backend != Backend::None);
    container
        .into_iter()
        .flat_map(|it| it.published())
        .map(|port| port.host)
}
