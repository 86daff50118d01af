//! Who may call the VMs, and which of the mesh they see: objects that hold for what has the Service's label `app`.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::workload::ISTIO;
use super::{Group, Name};

const SECURITY: &str = "security.istio.io/v1";

/// The policies that are printed on request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies {
    /// True: no call without the mesh's TLS.
    pub(crate) strict: bool,
    /// The callers that are allowed; none: whoever may call today.
    pub(crate) callers: Vec<Caller>,
    /// The hosts that the VMs' Envoy is told of beside istiod's; none: all.
    pub(crate) egress: Vec<EgressHost>,
}

/// A caller's identity, `NAMESPACE/SERVICE-ACCOUNT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Caller {
    namespace: Name,
    account: Name,
}

impl FromStr for Caller {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, account) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} is not namespace/service-account"))?;
        Ok(Self {
            namespace: namespace.parse()?,
            account: account.parse()?,
        })
    }
}

/// Hosts of one namespace, `NAMESPACE/HOST` (networking/v1alpha3/sidecar.proto, IstioEgressListener.hosts).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct EgressHost(String);

impl FromStr for EgressHost {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not namespace/host, such as \"onlineboutique/*\" or \"./cart.onlineboutique.svc.cluster.local\""
            )
        };
        let (namespace, host) = text.split_once('/').ok_or_else(wrong)?;
        let is_namespace = matches!(namespace, "." | "*") || namespace.parse::<Name>().is_ok();
        let rest = host.strip_prefix("*.").unwrap_or(host);
        let is_host = host == "*" || host.len() <= 253 && rest.split('.').all(|label| label.parse::<Name>().is_ok());
        match is_namespace && is_host {
            true => Ok(Self(text.to_owned())),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for EgressHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) fn objects(group: &Group, policies: &Policies, istio_namespace: &Name) -> Vec<Value> {
    let selected = json!({ "app": group.service.as_str() });
    let mut objects = Vec::new();
    if policies.strict {
        objects.push(object(
            group,
            SECURITY,
            "PeerAuthentication",
            json!({ "selector": { "matchLabels": selected }, "mtls": { "mode": "STRICT" } }),
        ));
    }
    if !policies.callers.is_empty() {
        // Istio takes `cluster.local` for the mesh's own trust domain, whatever that is called.
        let principal = |caller: &Caller| format!("cluster.local/ns/{}/sa/{}", caller.namespace, caller.account);
        let principals: Vec<String> = policies.callers.iter().map(principal).collect();
        objects.push(object(
            group,
            SECURITY,
            "AuthorizationPolicy",
            json!({
                "selector": { "matchLabels": selected },
                "action": "ALLOW",
                "rules": [{ "from": [{ "source": { "principals": principals } }] }],
            }),
        ));
    }
    if !policies.egress.is_empty() {
        let own = format!("{istio_namespace}/*");
        let mut hosts: Vec<String> = policies.egress.iter().map(ToString::to_string).collect();
        if !hosts.contains(&own) {
            hosts.insert(0, own);
        }
        objects.push(object(
            group,
            ISTIO,
            "Sidecar",
            json!({ "workloadSelector": { "labels": selected }, "egress": [{ "hosts": hosts }] }),
        ));
    }
    objects
}

fn object(group: &Group, api: &str, kind: &str, spec: Value) -> Value {
    json!({ "apiVersion": api, "kind": kind, "spec": spec,
        "metadata": { "name": group.name.as_str(), "namespace": group.namespace.as_str() } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_of_egress_is_one_that_istio_takes() {
        for text in [
            "*/*",
            "./*",
            "boutique/*",
            "boutique/*.boutique.svc.cluster.local",
            "./cart.boutique.svc.cluster.local",
        ] {
            assert_eq!(text.parse::<EgressHost>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "*",
            "boutique",
            "Boutique/*",
            "boutique/",
            "boutique/*cart",
            "boutique/a..b",
            "~/*",
            "a/b/c",
        ] {
            assert!(text.parse::<EgressHost>().is_err(), "{text}");
        }
    }

    #[test]
    fn caller_is_a_service_account_of_a_namespace() {
        assert!("boutique/checkout".parse::<Caller>().is_ok());
        for text in ["checkout", "/checkout", "boutique/", "boutique/*", "a/b/c"] {
            assert!(text.parse::<Caller>().is_err(), "{text}");
        }
    }
}
