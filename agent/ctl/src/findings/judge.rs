//! Findings from what was read. Pure.

use serde_json::Value;

use super::networks::no_network;
use super::pods::unready;
use super::service::unsplit;
use super::world::World;
use super::{Finding, Forbids};
use crate::migration::{Form, Migration};
use crate::objects;

/// All findings.
pub(super) fn all(migration: &Migration, worlds: &[World]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut of_all = |forbids, problem: String| {
        findings.push(Finding {
            cluster: "all".to_owned(),
            forbids,
            problem,
        });
    };
    let (namespace, service) = (&migration.namespace, &migration.service);
    if worlds.iter().all(|world| world.service.is_none()) {
        of_all(
            Forbids::Everything,
            format!("no cluster has Service {namespace}/{service}"),
        );
    }
    findings.extend(no_vm(migration, worlds));
    findings.extend(pods(migration, worlds));
    findings.extend(other_roots(worlds));
    findings.extend(no_network(migration, worlds));
    for world in worlds {
        let told = [
            unsplit(migration, world),
            routes(migration, world),
            rules(migration, world),
            gateway_routes(migration, world),
            policies(migration, world),
        ];
        findings.extend(told.concat().into_iter().map(|(forbids, problem)| Finding {
            cluster: world.cluster.clone(),
            forbids,
            problem,
        }));
    }
    findings
}

/// Findings about pods: none can take calls, or some can't.
pub(super) fn pods(migration: &Migration, worlds: &[World]) -> Vec<Finding> {
    let has_ready = worlds.iter().any(|world| has_ready_pods(migration, world));
    let forbids = if has_ready { Forbids::Nothing } else { Forbids::Pods };
    let finding = |cluster: &str, problem| Finding {
        cluster: cluster.to_owned(),
        forbids,
        problem,
    };
    let mut findings = Vec::new();
    if !has_ready {
        let (namespace, service) = (&migration.namespace, &migration.service);
        let service = migration.pods.service.as_ref().unwrap_or(service);
        let problem = format!("no cluster has a ready pod behind Service {namespace}/{service}: deploy them first");
        findings.push(finding("all", problem));
    }
    for world in worlds {
        let unready = unready(migration, world).into_iter();
        findings.extend(unready.map(|problem| finding(&world.cluster, problem)));
    }
    findings
}

/// The finding where no cluster has a VM that is healthy.
pub(crate) fn no_vm(migration: &Migration, worlds: &[World]) -> Option<Finding> {
    let (namespace, group) = (&migration.namespace, &migration.vm.workload_group);
    let has_none = !worlds.iter().any(|world| has_vm(migration, world));
    has_none.then(|| Finding {
        cluster: "all".to_owned(),
        forbids: Forbids::Vm,
        problem: format!(
            "no cluster has a healthy WorkloadEntry of group {namespace}/{group}: start the agent on the VM, and see \
             `istio-vm-agent status` there"
        ),
    })
}

fn has_ready_pods(migration: &Migration, world: &World) -> bool {
    let service = migration.pods.service.as_ref().unwrap_or(&migration.service);
    if migration.form() == Form::Hosts && world.pods_service.is_none() {
        return false;
    }
    !world.ready_addresses(service).is_empty()
}

fn has_vm(migration: &Migration, world: &World) -> bool {
    let mut present = world
        .entries_of_group(migration)
        .filter(|entry| metadata_text(entry, "deletionTimestamp").is_none());
    present.any(|entry| {
        let mut conditions = entry["status"]["conditions"].as_array().into_iter().flatten();
        !conditions.any(|condition| condition["type"] == "Healthy" && condition["status"] == "False")
    })
}

fn other_roots(worlds: &[World]) -> Option<Finding> {
    let mut roots = worlds
        .iter()
        .filter_map(|world| Some((&world.cluster, world.root.as_ref()?)));
    let (first, root) = roots.next()?;
    let (other, _) = roots.find(|(_, other)| *other != root)?;
    Some(Finding {
        cluster: other.clone(),
        forbids: Forbids::Everything,
        problem: format!("its root of trust is not that of {first}: no call from one to the other can succeed"),
    })
}

pub(super) fn routes(migration: &Migration, world: &World) -> Vec<(Forbids, String)> {
    let mut told = Vec::new();
    for route in &world.virtual_services {
        let (name, namespace) = (text(route, "name"), text(route, "namespace"));
        if is_own(migration, route) && migration.gateway_route.is_none() {
            continue;
        }
        let spec = &route["spec"];
        let gateways: Vec<&str> = strings(&spec["gateways"]).collect();
        let is_of_mesh = gateways.is_empty() || gateways.contains(&"mesh");
        let is_ours = |host: &str| full(host, namespace, migration) == migration.host();
        if is_of_mesh && strings(&spec["hosts"]).any(is_ours) {
            let why = match migration.gateway_route {
                None => "of two the older alone counts: remove it, or take its weights by hand",
                Some(_) => "a route of the Gateway API beats it, with all that it says: remove it",
            };
            told.push((
                Forbids::Everything,
                format!("VirtualService {namespace}/{name} has the host too, and {why}"),
            ));
        } else if destinations(spec).any(is_ours) {
            told.push((
                Forbids::Nothing,
                format!(
                    "VirtualService {namespace}/{name} sends its calls to {} past the split: they stay with the VM \
                     until it names the pods",
                    migration.service
                ),
            ));
        }
    }
    told
}

fn rules(migration: &Migration, world: &World) -> Vec<(Forbids, String)> {
    let mut told = Vec::new();
    let of_host = |rule: &&Value, host: &str| {
        let named = rule["spec"]["host"].as_str().unwrap_or_default();
        full(named, text(rule, "namespace"), migration) == host
    };
    for rule in world.rules.iter().filter(|rule| of_host(rule, &migration.host())) {
        let (name, namespace) = (text(rule, "name"), text(rule, "namespace"));
        if is_own(migration, rule) {
            continue;
        }
        if migration.form() == Form::Subsets && namespace != migration.namespace.as_str() {
            told.push((
                Forbids::Everything,
                format!("DestinationRule {namespace}/{name} hides the subsets from the callers of its namespace"),
            ));
        }
        if migration.form() == Form::Hosts && !world.rules.iter().any(|rule| of_host(&rule, &migration.pods_host())) {
            told.push((
                Forbids::Nothing,
                format!(
                    "DestinationRule {namespace}/{name} doesn't hold for the pods: have one for {} too",
                    migration.pods_host()
                ),
            ));
        }
    }
    told
}

fn gateway_routes(migration: &Migration, world: &World) -> Vec<(Forbids, String)> {
    let is_parent = |parent: &Value| {
        let kind = parent["kind"].as_str().unwrap_or("Gateway");
        kind == "Service" && parent["name"] == migration.service.as_str()
    };
    let kind = objects::route_kind(migration);
    let others = world
        .gateway_routes
        .iter()
        .filter(|(of, route)| *of != kind || !is_own(migration, route));
    let of_service = others.filter(|(_, route)| {
        let mut parents = route["spec"]["parentRefs"].as_array().into_iter().flatten();
        parents.any(is_parent)
    });
    let told = of_service.map(|(kind, route)| {
        let (kind, name) = (kind.singular(), text(route, "name"));
        let why = match migration.gateway_route {
            None => "beats any VirtualService: remove it, or have the split be one of its kind (`gateway_route`)",
            Some(_) => "its rules come beside those of the split: remove it",
        };
        let problem = format!(
            "{kind} {}/{name} of the Gateway API has the service, and {why}",
            migration.namespace
        );
        (Forbids::Everything, problem)
    });
    told.collect()
}

/// True for an object of this program's name, whatever its kind.
fn is_own(migration: &Migration, object: &Value) -> bool {
    text(object, "name") == migration.object_name() && text(object, "namespace") == migration.namespace.as_str()
}

/// A policy that selects one side alone.
fn policies(migration: &Migration, world: &World) -> Vec<(Forbids, String)> {
    let labels_of_vm = world.group.as_ref().map(|group| &group["spec"]["metadata"]["labels"]);
    let labels_of_pods = world.pods_service.as_ref().map(|service| &service["spec"]["selector"]);
    let (Some(vm), Some(pods)) = (labels_of_vm, labels_of_pods) else {
        return Vec::new();
    };
    let selects = |policy: &Value, labels: &Value| {
        let wanted = policy["spec"]["selector"]["matchLabels"]
            .as_object()
            .into_iter()
            .flatten();
        wanted.into_iter().all(|(key, value)| labels[key] == *value)
    };
    let of_one = world
        .policies
        .iter()
        .filter(|policy| selects(policy, vm) != selects(policy, pods));
    let told = of_one.map(|policy| {
        let side = if selects(policy, vm) {
            "the VM and not the pods"
        } else {
            "the pods and not the VM"
        };
        let name = text(policy, "name");
        let problem = format!("AuthorizationPolicy {}/{name} is about {side}", migration.namespace);
        (Forbids::Nothing, problem)
    });
    told.collect()
}

/// Every destination of a VirtualService.
fn destinations(spec: &Value) -> impl Iterator<Item = &str> {
    let routes = ["http", "tcp", "tls"]
        .into_iter()
        .flat_map(|kind| spec[kind].as_array());
    let weights = routes.flatten().flat_map(|route| route["route"].as_array()).flatten();
    weights.filter_map(|weight| weight["destination"]["host"].as_str())
}

/// A host as Istio reads it: one without dots is of the object's own namespace.
fn full(host: &str, namespace: &str, migration: &Migration) -> String {
    match host.contains('.') {
        true => host.to_owned(),
        false => format!("{host}.{namespace}.svc.{}", migration.cluster_domain),
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    metadata_text(object, key).unwrap_or("?")
}

fn metadata_text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"][key].as_str()
}

#[cfg(test)]
mod tests;
