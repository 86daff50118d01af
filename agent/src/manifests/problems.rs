//! Objects that the API server, its defaults or Istio's webhook would refuse, or take and never serve: told before
//! anybody applies the half of it.

use std::collections::BTreeSet;

use super::elsewhere::Way;
use super::{Endpoints, Exposed, Wanted};
use crate::config::ports;
use crate::facts::kubernetes_name::{is_dns_label, is_label_key, is_label_value};

/// The longest name of a label without its prefix, and the longest value (apimachinery, validation).
const LONGEST: usize = 63;

/// All problems, each with the option to correct.
pub(crate) fn problems(wanted: &Wanted) -> Vec<String> {
    let group = &wanted.group;
    let mut problems = Vec::new();
    if group.service.as_str().starts_with(|c: char| c.is_ascii_digit()) {
        problems.push(format!(
            "--service: {} begins with a digit, which the API server refuses for a Service (RFC 1035)",
            group.service
        ));
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for port in &group.ports {
        if !names.insert(&port.name) || !numbers.insert(port.port) {
            problems.push(format!(
                "--port: {}:{} has the name or the number of another one",
                port.name, port.port
            ));
        }
        if port.name.as_str().split('-').next() == Some("udp") {
            problems.push(format!(
                "--port: {}: UDP doesn't go through Envoy on a VM: leave it out, and have callers send to the VM's address",
                port.name
            ));
        }
        if port.target == ports::SSH {
            problems.push(format!(
                "--port: {}: port {} of a VM is left alone, for sshd is there: what callers send in mTLS would come to no Envoy; \
                 have the application listen elsewhere",
                port.name,
                ports::SSH
            ));
        }
        if let Err(problem) = ports::check_free(port.target) {
            problems.push(format!("--port: {}: {problem}", port.name));
        }
    }
    for (key, value) in &group.labels {
        if !is_label_key(key) || !is_label_value(value) {
            problems.push(format!(
                "--label: {key}={value} is no label of Kubernetes: at most {LONGEST} letters, digits, -, _ and ., which \
                 begin and end with a letter or digit; the key may have a prefix, as example.com/team"
            ));
        }
    }
    // istiod puts it into the name of the WorkloadEntry.
    if let Some(network) = group.network.as_ref().filter(|network| !is_dns_label(network)) {
        problems.push(format!(
            "--network: {network:?} can't stand in the name of a WorkloadEntry: at most {LONGEST} of a-z, 0-9 and -, not - \
             at an end"
        ));
    }
    problems.extend(of_addresses(&wanted.endpoints));
    problems.extend(of_exposed(wanted));
    problems
}

fn of_addresses(endpoints: &Endpoints) -> Vec<String> {
    let (Endpoints::Listed(addresses) | Endpoints::Elsewhere(Way::Addresses(addresses))) = endpoints else {
        return Vec::new();
    };
    let mut seen = BTreeSet::new();
    let mut problems = Vec::new();
    for address in addresses {
        if !seen.insert(address) {
            problems.push(format!("--address: {address} is there twice"));
        }
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            problems.push(format!("--address: nobody else reaches a VM at {address}"));
        }
    }
    problems
}

fn of_exposed(wanted: &Wanted) -> Vec<String> {
    let mesh = &wanted.mesh;
    let has = |exposed| wanted.exposed.contains(&exposed);
    let mut problems = Vec::new();
    if has(Exposed::Istiod) && has(Exposed::IstiodLoadBalancer) {
        problems.push(
            "--expose: istiod is exposed by the gateway or by a load balancer of its own, not by both".to_owned(),
        );
    }
    let elsewhere = mesh.ingress.as_ref().and_then(|ingress| ingress.namespace.as_ref());
    if let Some(namespace) = elsewhere.filter(|it| has(Exposed::IstiodLoadBalancer) && **it != mesh.namespace) {
        problems.push(format!(
            "--ingress-service: a Service in {namespace} selects no pod of istiod, which is in {}",
            mesh.namespace
        ));
    }
    problems
}
