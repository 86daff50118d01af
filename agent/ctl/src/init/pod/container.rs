//! The container of a pod: image, arguments, variables, limits and rights.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::super::Subject;
use super::super::vm::Container;
use super::ports::Ports;

/// Capabilities that the agent takes from a container unless its configuration says otherwise (`cap_drop`).
const DROPPED: [&str; 5] = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"];
/// Capabilities that it takes beside them on the VM's own network.
const DROPPED_ON_HOST: [&str; 2] = ["SETGID", "SETUID"];

pub(super) fn container(subject: &Subject, container: &Container, image: &str, ports: &Ports) -> Result<Value> {
    let env = container
        .env
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": literal(value) }));
    // The later file wins in either, and `env` over all.
    let files = (0..container.env_files.len()).map(|at| json!({ "secretRef": { "name": env_secret(subject, at) } }));
    let mut object = json!({
        "name": subject.service.as_str(),
        "image": image,
        "env": env.collect::<Vec<_>>(),
        "envFrom": files.collect::<Vec<_>>(),
        "ports": ports.of_container(),
        "resources": resources(container)?,
        "securityContext": security(container),
    });
    if let Some(command) = &container.command {
        // Docker's command are the arguments of the image's entry point, as Kubernetes' args are.
        object["args"] = command.iter().map(|word| literal(word)).collect();
    }
    Ok(object)
}

/// The Secret that has the variables of a file.
pub(super) fn env_secret(subject: &Subject, at: usize) -> String {
    format!("{}-env-{at}", subject.pods_service)
}

/// `USER[:GROUP]` where both are numbers.
pub(super) fn user_and_group(user: &str) -> Option<(u32, Option<u32>)> {
    match user.split_once(':') {
        Some((user, group)) => Some((user.parse().ok()?, Some(group.parse().ok()?))),
        None => Some((user.parse().ok()?, None)),
    }
}

/// Kubernetes replaces `$(NAME)` in variables and arguments, Docker doesn't.
fn literal(text: &str) -> Value {
    text.replace("$(", "$$(").into()
}

/// Limits are requests too: the VM shares what it has with nobody.
fn resources(container: &Container) -> Result<Value> {
    let mut amounts = json!({});
    if let Some(cpus) = container.cpus {
        amounts["cpu"] = cpus.to_string().into();
    }
    if let Some(memory) = &container.memory {
        amounts["memory"] = quantity(memory)
            .with_context(|| format!("workload.container.memory = {memory:?} is no size, such as \"512m\""))?
            .into();
    }
    Ok(json!({ "limits": amounts, "requests": amounts }))
}

/// Docker's `512m` are mebibytes, Kubernetes' are thousandths of a byte.
fn quantity(size: &str) -> Option<String> {
    let lower = size.to_ascii_lowercase();
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit());
    let count = lower.strip_suffix(unit).filter(|count| !count.is_empty())?;
    let suffix = match unit {
        "" | "b" => "",
        "k" | "kb" | "kib" => "Ki",
        "m" | "mb" | "mib" => "Mi",
        "g" | "gb" | "gib" => "Gi",
        "t" | "tb" | "tib" => "Ti",
        _ => return None,
    };
    Some(format!("{count}{suffix}"))
}

fn security(container: &Container) -> Value {
    let name = |name: &String| {
        let upper = name.to_ascii_uppercase();
        upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
    };
    let added: Vec<String> = container.cap_add.iter().map(name).collect();
    let mut dropped: Vec<String> = match &container.cap_drop {
        Some(dropped) => dropped.iter().map(name).collect(),
        None => DROPPED.map(str::to_owned).to_vec(),
    };
    if container.cap_drop.is_none() && container.network.as_deref() == Some("host") {
        dropped.extend(DROPPED_ON_HOST.map(str::to_owned));
    }
    dropped.retain(|name| !added.contains(name));
    let mut object = json!({
        "allowPrivilegeEscalation": !container.no_new_privileges.unwrap_or(true),
        "capabilities": { "add": added, "drop": dropped },
        "readOnlyRootFilesystem": container.read_only,
    });
    if let Some((user, group)) = container.user.as_deref().and_then(user_and_group) {
        object["runAsUser"] = user.into();
        object["runAsNonRoot"] = (user != 0).into();
        if let Some(group) = group {
            object["runAsGroup"] = group.into();
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_docker_are_sizes_of_kubernetes() {
        for (docker, kubernetes) in [
            ("512m", "512Mi"),
            ("2GB", "2Gi"),
            ("1tib", "1Ti"),
            ("4096", "4096"),
            ("7b", "7"),
        ] {
            assert_eq!(quantity(docker).as_deref(), Some(kubernetes));
        }
        for wrong in ["", "m", "1.5g", "12p", "-1m"] {
            assert_eq!(quantity(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn user_is_taken_by_number_alone() {
        assert_eq!(user_and_group("1000:2000"), Some((1000, Some(2000))));
        assert_eq!(user_and_group("1000"), Some((1000, None)));
        assert_eq!(user_and_group("app"), None);
        assert_eq!(user_and_group("1000:app"), None);
    }
}
