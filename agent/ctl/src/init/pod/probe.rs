//! The readiness probe of the pods: the one by which the VM is judged.

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::super::vm::{Asked, Probe};
use super::ports::Ports;
use super::whole_seconds;

/// The times of a probe and Istio's defaults, of which failureThreshold is another than Kubernetes'.
const DEFAULTS: [(&str, u64); 5] = [
    ("initialDelaySeconds", 0),
    ("timeoutSeconds", 1),
    ("periodSeconds", 10),
    ("successThreshold", 1),
    ("failureThreshold", 1),
];

/// The probe of the VM's configuration, else of its group; absent: neither has one.
pub(super) fn probe(
    configured: Option<&Probe>,
    group: Option<&Value>,
    ports: &Ports,
    notes: &mut Vec<String>,
) -> Result<Option<Value>> {
    let of_group = || {
        group
            .map(|group| group["spec"]["probe"].clone())
            .filter(Value::is_object)
    };
    let probe = match configured {
        Some(probe) => Some(of_configuration(probe)?),
        None => of_group(),
    };
    let Some(Value::Object(mut probe)) = probe else {
        return Ok(None);
    };
    for kind in ["grpc", "httpGet", "tcpSocket"] {
        if let Some(Value::Object(asked)) = probe.get_mut(kind) {
            to_container(asked, ports, notes);
        }
    }
    if probe.contains_key("exec") {
        notes.push(
            "the VM runs the probe's command beside the container, a pod runs it in there: see that the image has it"
                .to_owned(),
        );
    }
    for (key, default) in DEFAULTS {
        // istiod leaves out what is 0, and means its default by it.
        let is_said = probe.get(key).and_then(Value::as_u64).is_some_and(|value| value > 0);
        if !is_said {
            probe.insert(key.to_owned(), default.into());
        }
    }
    Ok(Some(probe.into()))
}

/// The probe asks a port of the VM, at an address that the pod may not have.
fn to_container(asked: &mut Map<String, Value>, ports: &Ports, notes: &mut Vec<String>) {
    if let Some(port) = asked.get("port").and_then(Value::as_u64) {
        asked.insert("port".to_owned(), ports.in_container(port).into());
    }
    if let Some(host) = asked.remove("host") {
        notes.push(format!("the VM's probe asks {host}, that of the pods asks each pod"));
    }
}

fn of_configuration(probe: &Probe) -> Result<Value> {
    let mut object = match probe {
        Probe { grpc: Some(asked), .. } => json!({ "grpc": grpc(asked) }),
        Probe { http: Some(asked), .. } => json!({ "httpGet": http(asked) }),
        Probe { tcp: Some(asked), .. } => json!({ "tcpSocket": with_host(json!({ "port": asked.port }), asked) }),
        Probe { exec: Some(exec), .. } => json!({ "exec": { "command": exec.command } }),
        _ => bail!("health.probe: exactly one of grpc, http, tcp, exec"),
    };
    for (key, text) in [
        ("initialDelaySeconds", &probe.initial_delay),
        ("timeoutSeconds", &probe.timeout),
        ("periodSeconds", &probe.period),
    ] {
        if let Some(text) = text {
            let time = humantime::parse_duration(text).with_context(|| format!("health.probe: {text:?} is no time"))?;
            object[key] = whole_seconds(time).into();
        }
    }
    for (key, count) in [
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if let Some(count) = count {
            object[key] = count.into();
        }
    }
    Ok(object)
}

fn grpc(asked: &Asked) -> Value {
    let mut object = json!({ "port": asked.port });
    if let Some(service) = asked.service.as_deref().filter(|name| !name.is_empty()) {
        object["service"] = service.into();
    }
    object
}

fn http(asked: &Asked) -> Value {
    let headers = asked
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value }));
    let object = json!({
        "port": asked.port,
        "path": asked.path.as_deref().unwrap_or("/"),
        "scheme": asked.scheme.as_deref().unwrap_or("http").to_ascii_uppercase(),
        "httpHeaders": headers.collect::<Vec<_>>(),
    });
    with_host(object, asked)
}

fn with_host(mut object: Value, asked: &Asked) -> Value {
    if let Some(host) = &asked.host {
        object["host"] = host.as_str().into();
    }
    object
}
