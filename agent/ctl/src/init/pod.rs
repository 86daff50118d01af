//! The pods that are what the VM's container is: same image, arguments, variables, ports, limits, rights and probe.
//!
//! Pure. What a container of Docker has and a pod has not is a note; a note is for a person, so that nothing is left out
//! in silence. Secrets are named and never read.

mod container;
mod ports;
mod probe;
#[cfg(test)]
mod tests;
mod volumes;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::Subject;
use super::found::Found;
use super::vm::{Container, Vm};
use crate::findings::selects;
use ports::Ports;

/// Kubernetes' own time from TERM to KILL, in seconds; Envoy drains in it.
const GRACE: u64 = 30;

/// The objects, in the order in which they can be applied, and what they can't say.
pub(super) struct Pods {
    pub(super) objects: Vec<Value>,
    pub(super) notes: Vec<String>,
}

pub(super) fn pods(subject: &Subject, found: &Found, vm: &Vm, image: Option<&str>) -> Result<Pods> {
    let container = vm.container().context(
        "the VM's configuration has no [workload.container], or several applications: their own manifest is yours to write",
    )?;
    let image = match image {
        Some(image) => image,
        None => &container.image,
    };
    if let Err(problem) = pinned(image) {
        bail!(
            "workload.container.image = {image:?}: {problem}; `docker image inspect --format '{{{{index .RepoDigests 0}}}}' \
             {image}` on the VM prints what it runs: name that with --image"
        );
    }
    let service = found
        .services
        .iter()
        .find(|it| it["metadata"]["name"] == subject.service.as_str())
        .context("the VM's Service is gone")?;
    let mut notes = notes(container);
    let ports = Ports::of(service, found.group.as_ref(), container, &mut notes)?;
    let volumes = volumes::volumes(subject, container, &mut notes)?;
    let mut own = container::container(subject, container, image, &ports)?;
    own["volumeMounts"] = volumes.mounts.into();
    match probe::probe(vm.probe(), found.group.as_ref(), &ports, &mut notes)? {
        Some(probe) => own["readinessProbe"] = probe,
        None => notes.push("the VM has no probe: pods take calls as soon as their process runs".to_owned()),
    }
    let account = account(found);
    let mut spec = json!({
        "serviceAccountName": account,
        // Nor has the VM's container one; and it would lie in /run/secrets.
        "automountServiceAccountToken": false,
        "terminationGracePeriodSeconds": grace(container)?,
        "containers": [own],
        "volumes": volumes.volumes,
    });
    if let Some(secret) = volumes.pull_secret {
        spec["imagePullSecrets"] = json!([{ "name": secret }]);
    }
    let mut labels = labels(subject, found, service);
    notes.extend(without_services(&mut labels, subject, found));
    let mut deployment = named(subject, "apps/v1", "Deployment");
    deployment["spec"] = json!({
        "replicas": found.registered.len().max(1),
        "selector": { "matchLabels": { "app": subject.pods_service.as_str() } },
        "template": { "metadata": { "labels": labels }, "spec": spec },
    });
    let mut own_service = named(subject, "v1", "Service");
    own_service["spec"] = json!({
        "ports": ports.of_service(),
        "selector": { "app": subject.pods_service.as_str() },
    });
    let mut service_account = named(subject, "v1", "ServiceAccount");
    service_account["metadata"] = json!({ "name": account, "namespace": subject.namespace.as_str() });
    let objects = vec![service_account, own_service, without_empty(deployment)];
    Ok(Pods { objects, notes })
}

/// An image that nobody can put another one behind.
pub(super) fn pinned(image: &str) -> Result<String, String> {
    let digest = image.split_once("@sha256:").map_or("", |(_, digest)| digest);
    match digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(image.to_owned()),
        false => {
            Err("a tag may be another image tomorrow: it must end with @sha256: and 64 hexadecimal digits".to_owned())
        }
    }
}

/// The VM's identity, which policies name; a namespace always has `default`.
fn account(found: &Found) -> &str {
    let group = found.group.as_ref();
    let account = group.and_then(|group| group["spec"]["template"]["serviceAccount"].as_str());
    account.filter(|name| !name.is_empty()).unwrap_or("default")
}

/// Labels of the VM, but none that its Service selects by: it would send the pods calls that nobody has decided on.
fn labels(subject: &Subject, found: &Found, service: &Value) -> Map<String, Value> {
    let mut labels = found.labels();
    for key in service["spec"]["selector"].as_object().into_iter().flat_map(Map::keys) {
        labels.remove(key);
    }
    labels.insert("app".to_owned(), subject.pods_service.as_str().into());
    labels.insert("sidecar.istio.io/inject".to_owned(), "true".into());
    labels
}

/// Leaves out the labels by which another Service selects the VM: it would send the pods calls too. A note for each.
fn without_services(labels: &mut Map<String, Value>, subject: &Subject, found: &Found) -> Vec<String> {
    let mut notes = Vec::new();
    for service in &found.services {
        let name = service["metadata"]["name"].as_str().unwrap_or("?");
        if name == subject.pods_service.as_str() || !selects(service, labels) {
            continue;
        }
        let selector = service["spec"]["selector"].as_object();
        let keys = selector.into_iter().flat_map(Map::keys).map(String::as_str);
        // By that one the pods are selected themselves.
        let keys: Vec<&str> = keys.filter(|key| *key != "app").collect();
        for key in &keys {
            labels.remove(*key);
        }
        notes.push(format!(
            "Service {name} selects the VM too: the pods don't have its labels {}, and get none of its calls",
            keys.join(", ")
        ));
    }
    notes
}

fn grace(container: &Container) -> Result<u64> {
    let Some(text) = &container.stop_timeout else {
        return Ok(GRACE);
    };
    let time =
        humantime::parse_duration(text).with_context(|| format!("workload.container.stop_timeout = {text:?}"))?;
    Ok(GRACE.max(whole_seconds(time)))
}

/// Kubernetes counts whole ones; less than was asked for would be another limit.
fn whole_seconds(time: std::time::Duration) -> u64 {
    time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
}

fn named(subject: &Subject, api: &str, kind: &str) -> Value {
    json!({ "apiVersion": api, "kind": kind, "metadata": {
        "name": subject.pods_service.as_str(), "namespace": subject.namespace.as_str(),
        "labels": { "app": subject.pods_service.as_str() } } })
}

/// The object without lists and maps that have nothing in them, at any depth.
fn without_empty(value: Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let fields = map.into_iter().map(|(key, value)| (key, without_empty(value)));
            fields.filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(list) => list.into_iter().map(without_empty).collect(),
        value => value,
    }
}

/// Notes about settings that a pod can't be given.
fn notes(container: &Container) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |is_said: bool, text: &str| {
        if is_said {
            notes.push(text.to_owned());
        }
    };
    note(
        container.network.as_deref() == Some("host"),
        "workload.container.network is \"host\": what the application reaches on the VM's loopback, a pod doesn't have",
    );
    note(
        container.cloud_identity,
        "workload.container.cloud_identity: a pod acts with the identity that its ServiceAccount is bound to (on GKE \
         Workload Identity)",
    );
    note(
        container.pids_limit.is_some(),
        "workload.container.pids_limit: of pods it is a setting of the node (kubelet's podPidsLimit)",
    );
    note(
        !container.ulimits.is_empty(),
        "workload.container.ulimits: pods have those of the node's container runtime",
    );
    note(
        container.stop_signal.is_some(),
        "workload.container.stop_signal: pods get the image's STOPSIGNAL, and TERM where it has none",
    );
    let is_numeric = |user: &String| container::user_and_group(user).is_some();
    note(
        container.user.as_ref().is_some_and(|user| !is_numeric(user)),
        "workload.container.user is a name, and Kubernetes takes numbers: put them into securityContext.runAsUser and \
         runAsGroup, or the pods run as the image's user",
    );
    note(
        !container.labels.is_empty(),
        "workload.container.labels are Docker's: put those that anybody reads into the Deployment",
    );
    notes
}
