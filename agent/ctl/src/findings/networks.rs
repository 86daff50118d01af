//! The networks between callers and the VM. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use super::world::World;
use super::{Finding, Forbids};
use crate::migration::Migration;

/// Label of a network, which Istio's injector gives to pods (istio/api label.TopologyNetwork).
const NETWORK: &str = "topology.istio.io/network";

/// The finding where pods are in several networks and the WorkloadGroup in none: istiod then has each of them call the VM at
/// its own address, and none by the gateway of its network.
pub(super) fn no_network(migration: &Migration, worlds: &[World]) -> Option<Finding> {
    let pods = worlds.iter().flat_map(|world| &world.pods);
    let networks: BTreeSet<&str> = pods
        .filter_map(|pod| named(&pod["metadata"]["labels"][NETWORK]))
        .collect();
    let (world, group) = worlds.iter().find_map(|world| Some((world, world.group.as_ref()?)))?;
    let spec = &group["spec"];
    let own = [&spec["template"]["network"], &spec["metadata"]["labels"][NETWORK]];
    let has_own = own.into_iter().any(|network| named(network).is_some());
    let (namespace, group) = (&migration.namespace, &migration.vm.workload_group);
    let networks: Vec<&str> = networks.into_iter().collect();
    (networks.len() > 1 && !has_own).then(|| Finding {
        cluster: world.cluster.clone(),
        forbids: Forbids::Nothing,
        problem: format!(
            "pods are in {}, and WorkloadGroup {namespace}/{group} is in no network: those who can't route to the VM don't \
             reach it; set its spec.template.network, and reload the agent on the VM",
            networks.join(" and ")
        ),
    })
}

fn named(value: &Value) -> Option<&str> {
    value.as_str().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    #[test]
    fn group_without_a_network_is_named_where_pods_are_in_several() {
        let pod = |network: &str| json!({ "metadata": { "labels": { NETWORK: network } } });
        let told = |networks: [&str; 2], group: Value| {
            let [one, two] = networks.map(|network| World {
                cluster: "one".to_owned(),
                pods: vec![pod(network)],
                ..World::default()
            });
            let one = World {
                group: Some(group),
                ..one
            };
            no_network(&migration(HOSTS), &[one, two]).map(|finding| finding.problem)
        };
        let (several, bare) = (["network1", "network2"], json!({ "spec": {} }));
        let problem = told(several, bare.clone()).unwrap();
        assert!(
            problem.starts_with("pods are in network1 and network2, and WorkloadGroup"),
            "{problem}"
        );
        assert_eq!(told(["network1", "network1"], bare.clone()), None);
        assert_eq!(told(["", ""], bare), None);
        let in_one = json!({ "spec": { "template": { "network": "network1" } } });
        assert_eq!(told(several, in_one), None);
        let labeled = json!({ "spec": { "metadata": { "labels": { NETWORK: "network1" } } } });
        assert_eq!(told(several, labeled), None);
    }
}
