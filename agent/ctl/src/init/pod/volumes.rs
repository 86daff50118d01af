//! Volumes: the VM's files that the container has. Secrets by name, memory, and data that has to be brought to the
//! cluster.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::super::Subject;
use super::super::vm::Container;
use super::container::env_secret;
use crate::migration::Name;

/// Where the agent puts secrets, as Docker does.
const SECRETS_TARGET: &str = "/run/secrets";

#[derive(Default)]
pub(super) struct Volumes {
    pub(super) volumes: Vec<Value>,
    pub(super) mounts: Vec<Value>,
    /// The Secret with the registry's login.
    pub(super) pull_secret: Option<String>,
}

pub(super) fn volumes(subject: &Subject, container: &Container, notes: &mut Vec<String>) -> Result<Volumes> {
    let mut all = Volumes::default();
    let (namespace, pods) = (&subject.namespace, &subject.pods_service);
    let create = |secret: &str, kind: &str, from: &str| {
        format!(
            "make it where the VM's files are: kubectl create secret {kind} {secret} --namespace {namespace} {from}"
        )
    };
    if let Some(login) = &container.registry_config {
        let secret = format!("{pods}-registry");
        let from = format!("--from-file=.dockerconfigjson={}", login.display());
        let kind = "generic --type=kubernetes.io/dockerconfigjson";
        notes.push(format!(
            "Secret {secret} has the registry's login; {}",
            create(&secret, kind, &from)
        ));
        all.pull_secret = Some(secret);
    }
    for (at, file) in container.env_files.iter().enumerate() {
        let secret = env_secret(subject, at);
        let from = format!("--from-env-file={}", file.display());
        notes.push(format!(
            "Secret {secret} has the variables of {}; {}",
            file.display(),
            create(&secret, "generic", &from)
        ));
    }
    if !container.secrets.is_empty() {
        let secret = format!("{pods}-secrets");
        let from = container
            .secrets
            .iter()
            .map(|file| format!("--from-file={}", file.display()));
        let from = from.collect::<Vec<_>>().join(" ");
        notes.push(format!(
            "Secret {secret} has the files of {SECRETS_TARGET}; {}",
            create(&secret, "generic", &from)
        ));
        let items = container
            .secrets
            .iter()
            .map(|file| item(file))
            .collect::<Result<Vec<_>>>()?;
        all.volumes
            .push(json!({ "name": "secrets", "secret": { "secretName": secret, "items": items } }));
        all.mounts
            .push(json!({ "name": "secrets", "mountPath": SECRETS_TARGET, "readOnly": true }));
    }
    for (at, target) in container.tmpfs.iter().enumerate() {
        let name = format!("memory-{at}");
        all.mounts.push(json!({ "name": name, "mountPath": target }));
        all.volumes
            .push(json!({ "name": name, "emptyDir": { "medium": "Memory" } }));
    }
    data(pods, container, &mut all, notes)?;
    Ok(all)
}

/// Directories and volumes of the VM, which somebody has to bring to the cluster.
fn data(pods: &Name, container: &Container, all: &mut Volumes, notes: &mut Vec<String>) -> Result<()> {
    for (at, mount) in container.mounts.iter().enumerate() {
        let mut parts = mount.split(':');
        let (source, target) = (parts.next().unwrap_or_default(), parts.next());
        let target = target.with_context(|| format!("workload.container.mounts: {mount:?} is not source:target"))?;
        let is_read_only = parts.next() == Some("ro");
        let (name, claim) = (format!("data-{at}"), format!("{pods}-data-{at}"));
        notes.push(format!(
            "{target} is {source} on the VM: PersistentVolumeClaim {claim} is to have what is in there, or put a ConfigMap \
             in its place"
        ));
        all.mounts
            .push(json!({ "name": name, "mountPath": target, "readOnly": is_read_only }));
        all.volumes
            .push(json!({ "name": name, "persistentVolumeClaim": { "claimName": claim } }));
    }
    Ok(())
}

/// A file under its own name: one that is missing in the Secret keeps the pod from starting.
fn item(file: &Path) -> Result<Value> {
    let name = file.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("workload.container.secrets: {} has no name", file.display()))?;
    Ok(json!({ "key": name, "path": name }))
}
