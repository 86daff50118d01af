//! The traffic that goes through Envoy, as a bundle says: ports, networks, and by which means.

use std::fmt::Display;

use nix::unistd::Group;

use super::{Values, wrong_field};
use crate::config::{self, Backend, Config, ConfigError};
use crate::facts::{OutboundCapture, number, outbound};
use crate::join::ports;

const EXCLUDE_PORTS: &str = "ISTIO_LOCAL_EXCLUDE_PORTS";
/// The only one that this agent has rules for.
const MODE: &str = "REDIRECT";
/// IFNAMSIZ without its NUL.
const LONGEST_INTERFACE: usize = 15;
/// Istio's own limit (tools/istio-iptables/pkg/config).
const MOST_GROUPS: usize = 64;

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
            Some(_) => Some(self.ports(KEY)?),
            None => return Err(self.wrong(KEY, missing)),
        };
        for port in captured.iter().flatten() {
            config::ports::check_free(*port).map_err(|problem| self.wrong(KEY, problem))?;
            let mut moved = ["proxyListenPort", "proxyInboundListenPort"].into_iter();
            if let Some(field) = moved.find(|field| self.proxy_config.port(field) == Some(*port)) {
                let problem = format!("port {port} is Envoy's own in this mesh, by its {field}: take another one");
                return Err(self.wrong(KEY, problem));
            }
        }
        // sshd's is left alone by default, whatever is captured.
        let said: Vec<u16> = excluded
            .iter()
            .copied()
            .filter(|port| !ports::DEFAULT_EXCLUDED.contains(port))
            .collect();
        self.are_apart((KEY, captured.as_deref().unwrap_or_default()), (EXCLUDE_PORTS, &said))?;
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
            Some(_) => self.ports(EXCLUDE_PORTS),
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
        let outbound = OutboundCapture {
            networks: (!is_all).then(|| networks("ISTIO_SERVICE_CIDR")).transpose()?,
            exclude_networks: networks("ISTIO_SERVICE_EXCLUDE_CIDR")?,
            exclude_ports: self.ports(EXCLUDE)?,
            ports: self.ports("ISTIO_OUTBOUND_PORTS")?,
            groups: match self.env("ISTIO_OUTBOUND_OWNER_GROUPS").map(str::trim) {
                None | Some("" | "*") => None,
                Some(_) => Some(self.groups("ISTIO_OUTBOUND_OWNER_GROUPS")?),
            },
            exclude_groups: self.groups("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE")?,
        };
        self.are_apart(
            ("ISTIO_SERVICE_CIDR", outbound.networks.as_deref().unwrap_or_default()),
            ("ISTIO_SERVICE_EXCLUDE_CIDR", &outbound.exclude_networks),
        )?;
        self.are_apart(
            ("ISTIO_OUTBOUND_PORTS", &outbound.ports),
            (EXCLUDE, &outbound.exclude_ports),
        )?;
        self.are_apart(
            (
                "ISTIO_OUTBOUND_OWNER_GROUPS",
                outbound.groups.as_deref().unwrap_or_default(),
            ),
            ("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", &outbound.exclude_groups),
        )?;
        Ok(outbound)
    }

    /// Fails for what one variable has captured and another one left alone.
    fn are_apart<T: Display + PartialEq>(
        &self,
        (captured, what): (&str, &[T]),
        (excluded, others): (&str, &[T]),
    ) -> Result<(), ConfigError> {
        let both = what.iter().find(|item| others.contains(item));
        both.map_or(Ok(()), |item| {
            let problem = format!("{item} is in {excluded} too, which leaves it alone: remove it from one of them");
            Err(self.wrong(captured, problem))
        })
    }

    /// Interfaces whose traffic goes past Envoy.
    pub(in crate::join) fn exclude_interfaces(&self) -> Result<Vec<String>, ConfigError> {
        const KEY: &str = "ISTIO_EXCLUDE_INTERFACES";
        let is_name = |name: &str| {
            !["", ".", ".."].contains(&name)
                && name.len() <= LONGEST_INTERFACE
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte))
        };
        let wrong = |name: &str| {
            self.wrong(
                KEY,
                format!(
                    "{name:?} is no interface, such as \"eth1\": `ip link` lists them; write them with commas between"
                ),
            )
        };
        let names = items(self.env(KEY));
        names
            .map(|name| match is_name(name) {
                true => Ok(name.to_owned()),
                false => Err(wrong(name)),
            })
            .collect()
    }

    fn ports(&self, key: &str) -> Result<Vec<u16>, ConfigError> {
        ports::parse(self.env(key).unwrap_or_default()).map_err(|problem| self.wrong(key, problem))
    }

    /// Groups of this VM, by name or number.
    fn groups(&self, key: &str) -> Result<Vec<String>, ConfigError> {
        let names: Vec<String> = items(self.env(key)).map(str::to_owned).collect();
        let is_here =
            |name: &String| number::whole::<u32>(name).is_some() || matches!(Group::from_name(name), Ok(Some(_)));
        if names.len() > MOST_GROUPS {
            return Err(self.wrong(key, format!("has more than {MOST_GROUPS} groups: name fewer")));
        }
        match names.iter().find(|name| !is_here(name)) {
            None => Ok(names),
            Some(name) => Err(self.wrong(
                key,
                format!("{name:?} is no group of this VM: write its name or number, as `getent group` lists them"),
            )),
        }
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

/// Items of a list with commas; an absent list has none.
fn items(list: Option<&str>) -> impl Iterator<Item = &str> {
    let list = list.map(str::trim).filter(|list| !list.is_empty());
    list.into_iter().flat_map(|list| list.split(',').map(str::trim))
}

/// Ports of the VM that lead into a container, where the agent has any say in who gets there.
fn published(config: &Config) -> impl Iterator<Item = u16> {
    let published = config.workloads.published();
    published
        .filter(|_| config.intercept.backend != Backend::None)
        .map(|port| port.host)
}
