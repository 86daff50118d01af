//! `[intercept]`.

use ipnet::IpNet;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::Checks;
use super::ports::PROXY_UID;
use crate::facts::outbound;

/// `[intercept]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterceptConfig {
    /// The backend that carries the rules.
    pub backend: Backend,
    /// The fate of traffic while Envoy is dead.
    pub on_envoy_down: OnEnvoyDown,
    /// Users of this VM, by number, whose calls to the application don't go through Envoy; root's never do.
    pub direct_uids: Vec<u32>,
    /// Networks of bridges whose containers' calls don't go through Envoy.
    #[serde(deserialize_with = "networks")]
    pub exclude_container_networks: Vec<IpNet>,
}

/// The user id that stands for none in system calls (chown(2)).
const NOBODYS: u32 = u32::MAX;

impl InterceptConfig {
    pub(super) fn checks(&self) -> Checks {
        let needless = match self.backend {
            Backend::None => [
                ("direct_uids", !self.direct_uids.is_empty()),
                (
                    "exclude_container_networks",
                    !self.exclude_container_networks.is_empty(),
                ),
                ("on_envoy_down", self.on_envoy_down != OnEnvoyDown::default()),
            ],
            _ => Default::default(),
        };
        let needless = needless.into_iter().filter(|(_, is_there)| *is_there).map(|(key, _)| {
            Err(format!(
                "intercept.{key}: there are no rules that it could be in, by backend = \"none\": remove one of them"
            ))
        });
        let wrong = self.direct_uids.iter().filter_map(|uid| match *uid {
            PROXY_UID => Some(Err(format!(
                "intercept.direct_uids: {uid} is Envoy's own user, which is never sent to Envoy: name the one whose programs call"
            ))),
            NOBODYS => Some(Err(format!(
                "intercept.direct_uids: {uid} is no user's number: `id -u NAME` prints one"
            ))),
            _ => None,
        });
        needless.chain(wrong).collect()
    }

    /// True where one of a bridge's networks is left alone, or is part of one that is.
    pub fn excludes_containers_of(&self, bridge: &[IpNet]) -> bool {
        let excluded = |network| self.exclude_container_networks.iter().any(|it| it.contains(network));
        bridge.iter().any(excluded)
    }
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let network = |text: &String| {
        let network = outbound::network(text).filter(|_| text.contains('/'));
        network.ok_or_else(|| D::Error::custom(format!("{text:?} is no network, such as \"172.20.0.0/16\"")))
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(network).collect()
}

/// The backend that carries the rules.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nftables where the kernel can, else iptables.
    #[default]
    Auto,
    /// Istio's ISTIO_* chains.
    Iptables,
    /// One table of our own.
    Nftables,
    /// No rules; the operator redirects.
    None,
}

/// Per direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnEnvoyDown {
    /// Calls to this VM.
    pub inbound: FailPolicy,
    /// Calls from this VM.
    pub outbound: FailPolicy,
}

/// The fate of traffic while Envoy is dead.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailPolicy {
    /// Traffic is refused.
    #[default]
    Closed,
    /// Traffic goes past the mesh.
    Open,
}
