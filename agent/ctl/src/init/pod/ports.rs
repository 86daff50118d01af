//! Ports: what callers call, where the VM listens for it, and where the container does.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::super::vm::Container;

/// One port of the Service.
struct Port {
    /// As the VM's Service has it.
    of_service: Value,
    in_container: u64,
}

/// All ports, and the way from one of the VM to one of the container.
pub(super) struct Ports {
    ports: Vec<Port>,
    /// Of the VM, of the container.
    published: Vec<(u64, u64)>,
}

impl Ports {
    pub(super) fn of(
        service: &Value,
        group: Option<&Value>,
        container: &Container,
        notes: &mut Vec<String>,
    ) -> Result<Self> {
        let mut published = Vec::new();
        for mapping in &container.ports {
            let number = |text: &str| text.parse::<u16>().ok().map(u64::from);
            let pair = mapping.split_once(':');
            let pair = pair.and_then(|(host, inner)| Some((number(host)?, number(inner)?)));
            published
                .push(pair.with_context(|| format!("workload.container.ports: {mapping:?} is not host:container"))?);
        }
        let mut all = Self {
            ports: Vec::new(),
            published,
        };
        for port in service["spec"]["ports"].as_array().into_iter().flatten() {
            let on_vm = on_vm(port, group);
            if container.network.as_deref() != Some("host") && !all.published.iter().any(|(host, _)| *host == on_vm) {
                notes.push(format!(
                    "port {} of the Service is {on_vm} on the VM, which its container doesn't publish: the pods are \
                     called on the same one",
                    port["port"]
                ));
            }
            let in_container = all.in_container(on_vm);
            all.ports.push(Port {
                of_service: port.clone(),
                in_container,
            });
        }
        Ok(all)
    }

    /// The container's port behind one of the VM.
    pub(super) fn in_container(&self, on_vm: u64) -> u64 {
        let mut published = self.published.iter();
        published
            .find(|(host, _)| *host == on_vm)
            .map_or(on_vm, |(_, inner)| *inner)
    }

    /// Ports of the pods' Service: callers see no difference.
    pub(super) fn of_service(&self) -> Vec<Value> {
        let port = |port: &Port| {
            let mut object = json!({ "targetPort": port.in_container });
            for key in ["name", "port", "protocol", "appProtocol"] {
                if !port.of_service[key].is_null() {
                    object[key] = port.of_service[key].clone();
                }
            }
            object
        };
        self.ports.iter().map(port).collect()
    }

    pub(super) fn of_container(&self) -> Vec<Value> {
        let mut numbers: Vec<u64> = self.ports.iter().map(|port| port.in_container).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
            .iter()
            .map(|number| json!({ "containerPort": number, "protocol": "TCP" }))
            .collect()
    }
}

/// The VM's port for a port of the Service: the group's by name, else the Service's own.
fn on_vm(port: &Value, group: Option<&Value>) -> u64 {
    let by_name = group.zip(port["name"].as_str());
    let by_name = by_name.and_then(|(group, name)| group["spec"]["template"]["ports"][name].as_u64());
    let own = || port["targetPort"].as_u64().or_else(|| port["port"].as_u64());
    by_name.or_else(own).unwrap_or_default()
}
