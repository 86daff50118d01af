//! `join.kubernetes`.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Checks;
use super::https::https_url;
use crate::facts::kubernetes_name::{is_dns_label, is_kubernetes_name};
use crate::facts::{is_host_name, is_of_a_machine};

/// The WorkloadGroup and its mesh, straight from the cluster's API server.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct KubernetesConfig {
    /// Namespace of the WorkloadGroup.
    pub namespace: String,
    /// Name of the WorkloadGroup.
    pub workload_group: String,
    /// URL of the API server; absent: that of `kubeconfig`.
    pub server: Option<String>,
    /// Certificates of the server's CA; absent: those that the VM trusts.
    pub ca_file: Option<PathBuf>,
    /// Credential: a bearer token, read again for every call.
    pub token_file: Option<PathBuf>,
    /// Credential: an access token of the instance's Google service account.
    #[serde(default)]
    pub google: bool,
    /// Server, CA and proof as kubectl has them, in place of the four keys above.
    pub kubeconfig: Option<PathBuf>,
    /// Context of `kubeconfig`; absent: its current one.
    pub context: Option<String>,
    /// Istio's name of the cluster.
    #[serde(default = "default_cluster_id")]
    pub cluster_id: String,
    /// Revision of the control plane; empty: the one without a name.
    #[serde(default)]
    pub revision: String,
    /// Namespace of the control plane.
    #[serde(default = "default_istio_namespace")]
    pub istio_namespace: String,
    /// Address or host name at which istiod is reached; absent: that of `ingress_service`.
    pub ingress: Option<String>,
    /// Service that leads to istiod from outside the cluster, `name` or `name.namespace`.
    #[serde(default = "default_ingress_service")]
    pub ingress_service: String,
    /// True when istiod makes the WorkloadEntry.
    #[serde(default = "yes")]
    pub auto_register: bool,
    /// True when the agent answers the VM's DNS questions.
    #[serde(default = "yes")]
    pub dns_capture: bool,
}

/// Istio's name for a cluster that was given none.
pub(super) fn default_cluster_id() -> String {
    "Kubernetes".to_owned()
}

/// Istio's own.
pub(super) fn default_istio_namespace() -> String {
    "istio-system".to_owned()
}

/// The gateway of Istio's VM guide, and istioctl's default.
pub(super) fn default_ingress_service() -> String {
    "istio-eastwestgateway".to_owned()
}

pub(super) fn yes() -> bool {
    true
}

impl KubernetesConfig {
    pub(super) fn checks(&self) -> Checks {
        let paths = [
            ("ca_file", &self.ca_file),
            ("token_file", &self.token_file),
            ("kubeconfig", &self.kubeconfig),
        ];
        let mut checks = self.check_group("join.kubernetes");
        checks.extend(paths.into_iter().filter_map(|(key, path)| {
            let path = path.as_ref()?;
            Some(super::absolute(&format!("join.kubernetes.{key}"), path))
        }));
        checks.push(self.check_access());
        checks
    }

    /// Checks of the WorkloadGroup's keys, however the server is reached; `table` is the configuration's.
    pub(super) fn check_group(&self, table: &str) -> Checks {
        let (service, elsewhere) = match self.ingress_service.split_once('.') {
            Some((service, namespace)) => (service, Some(namespace)),
            None => (self.ingress_service.as_str(), None),
        };
        let is_service = is_dns_label(service) && elsewhere.is_none_or(is_dns_label);
        let names = [
            ("namespace", &self.namespace, is_dns_label(&self.namespace)),
            (
                "workload_group",
                &self.workload_group,
                is_kubernetes_name(&self.workload_group),
            ),
            (
                "istio_namespace",
                &self.istio_namespace,
                is_dns_label(&self.istio_namespace),
            ),
            ("ingress_service", &self.ingress_service, is_service),
            (
                "revision",
                &self.revision,
                self.revision.is_empty() || is_dns_label(&self.revision),
            ),
        ];
        let mut checks: Checks = names
            .into_iter()
            .map(|(key, name, is_name)| kubernetes_name(&format!("{table}.{key}"), name, is_name))
            .collect();
        checks.push(check_ingress(table, self.ingress.as_deref()));
        checks.push(check_cluster_id(table, &self.cluster_id));
        checks
    }

    /// Exactly one way to the server, and exactly one proof.
    fn check_access(&self) -> Result<(), String> {
        let proofs = usize::from(self.token_file.is_some()) + usize::from(self.google);
        match (&self.server, &self.kubeconfig) {
            (Some(server), None) => {
                if server.contains('@') {
                    return Err(
                        "join.kubernetes.server: has a user's name in it: take that out, and have token_file or google"
                            .to_owned(),
                    );
                }
                https_url("join.kubernetes.server", server)?;
                if proofs != 1 || self.context.is_some() {
                    return Err(
                        "join.kubernetes: beside server there must be exactly one of token_file and google = true \
                         (`up` has --token-file and --google)"
                            .to_owned(),
                    );
                }
                Ok(())
            }
            (None, Some(_)) if proofs == 0 && self.ca_file.is_none() => Ok(()),
            (None, Some(_)) => Err(
                "join.kubernetes: kubeconfig has its own ca_file and token_file, and google is for server; leave them out"
                    .to_owned(),
            ),
            _ => Err("join.kubernetes: there must be either server (with ca_file) or kubeconfig".to_owned()),
        }
    }
}

/// istiod's address or host name, without a port: the mesh's configuration has that.
fn check_ingress(table: &str, ingress: Option<&str>) -> Result<(), String> {
    let Some(ingress) = ingress else { return Ok(()) };
    match ingress
        .parse::<IpAddr>()
        .map_or_else(|_| is_host_name(ingress), is_of_a_machine)
    {
        true => Ok(()),
        false => Err(format!(
            "{table}.ingress = {ingress:?}: is neither an address nor a host name, such as \"34.5.6.7\"; it has no port, \
             which control_plane.addresses could have"
        )),
    }
}

/// Fails for an id that fits no header: it goes to istiod in one with each call.
fn check_cluster_id(table: &str, cluster: &str) -> Result<(), String> {
    let is_name = !cluster.is_empty() && cluster.bytes().all(|byte| byte.is_ascii_graphic());
    match is_name {
        true => Ok(()),
        false => Err(format!(
            "{table}.cluster_id = {cluster:?}: is no name of a cluster, such as \"Kubernetes\": letters, digits and signs, \
             without blanks"
        )),
    }
}

/// The error about a value that is no name of its kind.
pub(super) fn kubernetes_name(key: &str, name: &str, is_name: bool) -> Result<(), String> {
    match is_name {
        true => Ok(()),
        false => Err(format!(
            "{key} = {name:?}: is no name in Kubernetes: lower-case letters, digits and '-', and '.' in a WorkloadGroup's"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<KubernetesConfig, String> {
        let text = format!("namespace = \"shop\"\nworkload_group = \"catalog\"\n{text}");
        let config: KubernetesConfig = toml::from_str(&text).map_err(|error| error.to_string())?;
        match config.checks().into_iter().find_map(Result::err) {
            Some(problem) => Err(problem),
            None => Ok(config),
        }
    }

    #[test]
    fn kubernetes_table_needs_a_few_lines() {
        let config = parse("server = \"https://10.0.0.1:6443\"\ntoken_file = \"/t\"").unwrap();
        assert_eq!(
            (config.cluster_id.as_str(), config.istio_namespace.as_str()),
            ("Kubernetes", "istio-system")
        );
        assert!(config.auto_register && config.dns_capture);
        parse("kubeconfig = \"/k\"\ncontext = \"x\"").unwrap();
    }

    #[test]
    fn kubernetes_table_has_one_way_to_the_server_and_one_credential() {
        let server = "server = \"https://a\"\n";
        let cases = [
            (String::new(), "either server (with ca_file) or kubeconfig"),
            (server.to_owned(), "exactly one of token_file and google"),
            (
                "server = \"https://me:hunter2@a/\"\ntoken_file = \"/t\"".to_owned(),
                "server: has a user's name in it",
            ),
            (format!("{server}token_file = \"/t\"\ngoogle = true"), "exactly one of"),
            (format!("{server}kubeconfig = \"/k\""), "either server"),
            ("kubeconfig = \"/k\"\ngoogle = true".to_owned(), "leave them out"),
            ("server = \"http://a\"\ntoken_file = \"/t\"".to_owned(), "plain text"),
            (
                format!("{server}token_file = \"t\""),
                "join.kubernetes.token_file = \"t\": must be an absolute path",
            ),
            (
                format!("{server}token_file = \"/t\"\nrevision = \"A/b\""),
                "join.kubernetes.revision = \"A/b\"",
            ),
            ("kubeconfig = \"/k\"\nserver_name = \"x\"".to_owned(), "server_name"),
        ];
        for (text, wanted) in cases {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
