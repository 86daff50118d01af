//! The Service that callers name, once the VM has left it: it leads where the pods' own Service does.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::Operation;
use super::{PATIENCE, PERIOD};
use crate::cluster::Mode;
use crate::findings::{SERVICES, World};
use crate::migration::Migration;
use crate::output::Event;

/// The `spec` that the callers' Service is to have in each cluster, in their order: the selector of the pods' Service, and by
/// their numbers its target ports. A cluster without the callers' Service has nothing.
///
/// # Errors
/// When the pods' Services differ, and when a port of the callers' is none of theirs.
pub(super) fn as_the_pods(worlds: &[World], migration: &Migration) -> Result<Vec<Option<Value>>> {
    let mut pods_services = worlds.iter().filter_map(|world| world.pods_service.as_ref());
    let pods = pods_services.next().context("no cluster has the pods' Service")?;
    if pods_services.any(|other| other["spec"]["selector"] != pods["spec"]["selector"]) {
        bail!("the pods' Services have different selectors: make them one");
    }
    let of_world = |world: &World| {
        let Some(service) = &world.service else {
            return Ok(None);
        };
        let own = world.pods_service.as_ref().unwrap_or(pods);
        let ports = ports(service).map(|port| {
            let mut of_pods = ports(own);
            let same = of_pods.find(|other| other["port"] == port["port"] && protocol(other) == protocol(port));
            let same = same.with_context(|| {
                format!(
                    "{}: port {} of Service {} is none of the pods' Service: give it that port, or nothing listens there",
                    world.cluster, port["port"], migration.service
                )
            })?;
            Ok(json!({ "port": port["port"], "protocol": protocol(port), "targetPort": target(same) }))
        });
        let ports = ports.collect::<Result<Vec<Value>>>()?;
        Ok(Some(
            json!({ "spec": { "selector": own["spec"]["selector"], "ports": ports } }),
        ))
    };
    worlds.iter().map(of_world).collect()
}

/// The callers' Service becomes what [`as_the_pods`] says.
pub(super) async fn select_pods(operation: &Operation) -> Result<()> {
    let migration = &operation.migration;
    let worlds = operation.worlds().await?;
    let wanted = as_the_pods(&worlds, migration)?;
    let changes = operation.clusters.iter().zip(worlds.iter().zip(wanted));
    let changes = changes.filter_map(|(cluster, (world, wanted))| Some((cluster, world.service.as_ref()?, wanted?)));
    let changes = changes.filter(|(_, service, wanted)| !is_already(service, wanted));
    let changes = changes.map(|(cluster, _, mut service)| async move {
        service["apiVersion"] = "v1".into();
        service["kind"] = "Service".into();
        service["metadata"] = json!({ "name": migration.service.as_str(), "namespace": migration.namespace.as_str() });
        cluster.take_over(SERVICES, &service, Mode::Real).await?;
        let what = &format!("Service {}/{} selects the pods", migration.namespace, migration.service);
        operation.output.tell(&Event::Written {
            cluster: cluster.name(),
            what,
        });
        Ok(())
    });
    try_join_all(changes).await.map(drop)
}

/// Completes when the callers' Service has the pods as endpoints, in each cluster that has it, and proxies too.
pub(super) async fn endpoints_are_the_pods(operation: &Operation) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut are_the_pods = false;
    while !are_the_pods {
        let worlds = operation.worlds().await?;
        are_the_pods = have_the_pods(&worlds, &operation.migration);
        if !are_the_pods && Instant::now() >= deadline {
            bail!(
                "after {} s the endpoints of Service {} are not those of the pods; the split stays, `retire` goes on",
                PATIENCE.as_secs(),
                operation.migration.service
            );
        }
        let wait = if are_the_pods {
            operation.migration.settle
        } else {
            PERIOD
        };
        operation.interrupt.unless(tokio::time::sleep(wait)).await?;
    }
    Ok(())
}

fn have_the_pods(worlds: &[World], migration: &Migration) -> bool {
    let pods = migration.pods.service.as_ref().unwrap_or(&migration.service);
    let with_service = worlds.iter().filter(|world| world.service.is_some());
    let mut sockets = with_service.map(|world| (world.ready_sockets(&migration.service), world.ready_sockets(pods)));
    let has_any = worlds.iter().any(|world| !world.ready_sockets(pods).is_empty());
    let addresses = |sockets: &BTreeSet<(&str, u64)>| -> BTreeSet<String> {
        sockets.iter().map(|(address, _)| (*address).to_owned()).collect()
    };
    // Of the pods' ports callers need not have all.
    has_any && sockets.all(|(own, pods)| own.is_subset(&pods) && addresses(&own) == addresses(&pods))
}

fn is_already(service: &Value, wanted: &Value) -> bool {
    let targets = |it| ports(it).map(target).collect::<Vec<_>>();
    service["spec"]["selector"] == wanted["spec"]["selector"] && targets(service) == targets(wanted)
}

fn ports(service: &Value) -> impl Iterator<Item = &Value> {
    service["spec"]["ports"].as_array().into_iter().flatten()
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

/// The port of the endpoints, a number or a name.
fn target(port: &Value) -> Value {
    match &port["targetPort"] {
        Value::Null => port["port"].clone(),
        target => target.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    fn service(app: &str, ports: &Value) -> Option<Value> {
        Some(json!({ "spec": { "selector": { "app": app }, "ports": ports } }))
    }

    fn worlds(of_callers: &Value, of_pods: &Value) -> [World; 2] {
        let one = World {
            cluster: "one".to_owned(),
            service: service("catalog", of_callers),
            ..World::default()
        };
        let two = World {
            pods_service: service("catalog-pods", of_pods),
            ..World::default()
        };
        [one, two]
    }

    #[test]
    fn ports_of_the_vm_become_those_of_the_pods() {
        let of_callers = json!([{ "name": "grpc", "port": 80, "targetPort": 3550 }, { "port": 81 }]);
        let of_pods = json!([{ "port": 81, "targetPort": "metrics" }, { "port": 80, "targetPort": 8080 }]);
        let wanted = as_the_pods(&worlds(&of_callers, &of_pods), &migration(HOSTS)).unwrap();
        let expected = json!({ "spec": { "selector": { "app": "catalog-pods" }, "ports": [
            { "port": 80, "protocol": "TCP", "targetPort": 8080 },
            { "port": 81, "protocol": "TCP", "targetPort": "metrics" },
        ] } });
        assert_eq!(wanted, [Some(expected.clone()), None]);
        assert!(is_already(&expected, &expected));
        let selected = service("catalog-pods", &of_callers).unwrap();
        assert!(!is_already(&selected, &expected), "the ports are still the VM's");
    }

    #[test]
    fn port_that_the_pods_lack_is_refused() {
        let refused = as_the_pods(
            &worlds(&json!([{ "port": 80 }]), &json!([{ "port": 81 }])),
            &migration(HOSTS),
        );
        let refused = refused.unwrap_err().to_string();
        assert!(
            refused.starts_with("one: port 80 of Service catalog is none of"),
            "{refused}"
        );
    }

    #[test]
    fn endpoints_are_the_pods_where_all_of_them_have_their_ports() {
        let slice = |service: &str, ports: Value, pods: Value| {
            json!({ "metadata": { "labels": { "kubernetes.io/service-name": service } }, "ports": ports,
                "endpoints": [{ "addresses": pods }] })
        };
        let own = |port, pods| slice("catalog", json!([{ "port": port }]), pods);
        // A further port is nothing that callers ask for.
        let ports = json!([{ "port": 8080 }, { "port": 9090 }]);
        let of_pods = slice("catalog-pods", ports, json!(["10.0.0.8", "10.0.0.9"]));
        let mut worlds = worlds(&Value::Null, &Value::Null);
        for (own, are_the_pods) in [
            (own(3550, json!(["10.0.0.8", "10.0.0.9"])), false),
            (own(8080, json!(["10.0.0.9"])), false),
            (own(8080, json!(["10.0.0.7", "10.0.0.8", "10.0.0.9"])), false),
            (own(8080, json!(["10.0.0.8", "10.0.0.9"])), true),
        ] {
            worlds[0].slices = vec![own, of_pods.clone()];
            let slices = &worlds[0].slices;
            assert_eq!(have_the_pods(&worlds, &migration(HOSTS)), are_the_pods, "{slices:?}");
        }
    }
}
