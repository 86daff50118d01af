//! Pods that would be sent calls and can't take them, each with Kubernetes' own reason. Pure.

use serde_json::Value;

use super::world::World;
use crate::migration::{Form, Migration};

/// Longest reason, in characters: those of images repeat what each registry has said.
const MAX_REASON: usize = 300;

/// The pods of a migration in one cluster that aren't ready, in words. Those that end, or have ended, are no longer meant.
pub(super) fn unready(migration: &Migration, world: &World) -> Vec<String> {
    let meant = world.pods.iter().filter(|pod| is_meant(migration, world, pod));
    meant
        .filter_map(|pod| {
            let name = pod["metadata"]["name"].as_str().unwrap_or("?");
            let reason: String = reason(&pod["status"])?.chars().take(MAX_REASON).collect();
            Some(format!("pod {}/{name} is not ready: {reason}", migration.namespace))
        })
        .collect()
}

fn is_meant(migration: &Migration, world: &World, pod: &Value) -> bool {
    let service = match migration.form() {
        Form::Hosts => world.pods_service.as_ref(),
        Form::Subsets => world.service.as_ref(),
    };
    let labels = &pod["metadata"]["labels"];
    let selector = service.and_then(|service| service["spec"]["selector"].as_object());
    let is_selected = selector
        .is_some_and(|selector| !selector.is_empty() && selector.iter().all(|(key, value)| labels[key] == *value));
    // Labels of the cluster and its zones are those of endpoints, and on no pod.
    let mut of_subset = migration.pods.labels.iter();
    let is_of_subset = of_subset.all(|(key, value)| labels[key].is_null() || labels[key] == value.as_str());
    let has_ended = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
    is_selected && is_of_subset && !has_ended && pod["metadata"]["deletionTimestamp"].is_null()
}

/// Why a pod isn't ready; `None`: it is. What a container waits for says more than the conditions.
fn reason(status: &Value) -> Option<String> {
    let list = |key: &str| status[key].as_array().map_or(&[][..], Vec::as_slice);
    let is = |condition: &Value, kind: &str, value: &str| condition["type"] == kind && condition["status"] == value;
    if list("conditions").iter().any(|it| is(it, "Ready", "True")) {
        return None;
    }
    let told = |what: &Value| {
        let text = |key: &str| what[key].as_str().filter(|text| !text.is_empty());
        match (text("reason"), text("message")) {
            (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
            (reason, message) => reason.or(message).map(str::to_owned),
        }
    };
    let mut containers = list("initContainerStatuses").iter().chain(list("containerStatuses"));
    let waiting = containers.find_map(|it| {
        let name = it["name"].as_str().unwrap_or("?");
        Some(format!("container {name}: {}", told(&it["state"]["waiting"])?))
    });
    let mut unmet = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
        .into_iter()
        .filter_map(|kind| list("conditions").iter().find(|it| is(it, kind, "False")));
    let phase = || status["phase"].as_str().unwrap_or("it has no status").to_owned();
    Some(waiting.or_else(|| unmet.find_map(told)).unwrap_or_else(phase))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    fn told(status: &Value) -> Vec<String> {
        let pod =
            json!({ "metadata": { "name": "catalog-1", "labels": { "app": "pods", "x": "y" } }, "status": status });
        let world = World {
            pods_service: Some(json!({ "spec": { "selector": { "app": "pods" } } })),
            pods: vec![
                pod,
                json!({ "metadata": { "name": "other", "labels": { "app": "web" } } }),
            ],
            ..World::default()
        };
        unready(&migration(HOSTS), &world)
    }

    #[test]
    fn pod_that_is_not_ready_is_named_with_the_reason_of_kubernetes() {
        let ready = json!({ "type": "Ready", "status": "True" });
        let waits = json!({ "reason": "ErrImagePull", "message": "catalog:2: not found" });
        let unready = json!({ "type": "Ready", "status": "False", "reason": "ContainersNotReady" });
        let nowhere = json!({ "type": "PodScheduled", "status": "False", "message": "0/3 nodes are available" });
        for (status, reason) in [
            (
                json!({ "conditions": [unready], "containerStatuses": [{ "name": "server", "state": { "waiting": waits } }] }),
                "container server: ErrImagePull: catalog:2: not found",
            ),
            (json!({ "conditions": [unready] }), "ContainersNotReady"),
            (json!({ "conditions": [nowhere] }), "0/3 nodes are available"),
            (json!({ "phase": "Pending" }), "Pending"),
        ] {
            assert_eq!(
                told(&status),
                [format!("pod boutique/catalog-1 is not ready: {reason}")]
            );
        }
        assert_eq!(told(&json!({ "conditions": [ready] })), [""; 0]);
        assert_eq!(told(&json!({ "phase": "Failed", "conditions": [unready] })), [""; 0]);
    }

    #[test]
    fn pods_of_one_service_are_those_of_their_subset() {
        let file = "namespace = 'boutique'\nservice = 'catalog'\ngate = { metrics = 'envoy' }\n\
            vm = { workload_group = 'catalog', labels = { side = 'vm' } }\n\
            pods = { labels = { side = 'pods', 'topology.istio.io/cluster' = 'two' } }\nclusters = [{ name = 'one' }]\n";
        let pod = |side: &str| json!({ "metadata": { "name": side, "labels": { "app": "catalog", "side": side } } });
        let world = World {
            service: Some(json!({ "spec": { "selector": { "app": "catalog" } } })),
            pods: vec![pod("vm"), pod("pods")],
            ..World::default()
        };
        let told = unready(&migration(file), &world);
        assert_eq!(told, ["pod boutique/pods is not ready: it has no status"]);
    }
}
