//! Fields of the Service that callers name which the split doesn't take along. Pure.

use serde_json::Value;

use super::Forbids;
use super::world::World;
use crate::migration::{Migration, Protocol};

/// Protocols of Istio (istio.io "Protocol Selection") whose calls are connections, which a route of HTTP doesn't split.
const OF_CONNECTIONS: [&str; 8] = ["https", "mongo", "mysql", "postgres", "redis", "tcp", "tls", "udp"];

pub(super) fn unsplit(migration: &Migration, world: &World) -> Vec<(Forbids, String)> {
    let mut told = without_the_routes_services(migration, world);
    let Some(service) = &world.service else {
        return told.into_iter().map(|problem| (Forbids::Everything, problem)).collect();
    };
    let name = format!("Service {}/{}", migration.namespace, migration.service);
    if service["spec"]["clusterIP"] == "None" {
        told.push(format!(
            "{name} is headless, so that callers pick an endpoint by themselves: give it an address"
        ));
    }
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    told.extend(ports.filter_map(|port| of_port(migration, &name, port)));
    told.extend(without_the_routes_port(migration, world));
    told.into_iter().map(|problem| (Forbids::Everything, problem)).collect()
}

/// True when a Service's selector fits `labels`.
pub(crate) fn selects(service: &Value, labels: &serde_json::Map<String, Value>) -> bool {
    let selector = service["spec"]["selector"].as_object();
    selector.is_some_and(|selector| {
        !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
    })
}

/// The other Services whose callers would lose the VM with its group, in words.
pub(crate) fn others_of_the_vm(migration: &Migration, world: &World) -> Vec<String> {
    let labels = world.group.as_ref().map(|group| &group["spec"]["metadata"]["labels"]);
    let Some(labels) = labels.and_then(Value::as_object) else {
        return Vec::new();
    };
    let names = world.services.iter().filter(|service| selects(service, labels));
    let names = names.filter_map(|service| service["metadata"]["name"].as_str());
    let others = names.filter(|name| *name != migration.service.as_str());
    let told = others.map(|name| {
        format!(
            "{}: Service {}/{name} selects the VM too, and its callers lose it: move them first, or have it select others",
            world.cluster, migration.namespace
        )
    });
    told.collect()
}

/// The protocol of a migration of the Service: TCP where each of its ports says so.
pub(crate) fn protocol_of(service: &Value) -> Protocol {
    let ports = service["spec"]["ports"].as_array().map_or(&[][..], Vec::as_slice);
    match !ports.is_empty() && ports.iter().all(|port| protocol(port) == Some("tcp")) {
        true => Protocol::Tcp,
        false => Protocol::Http,
    }
}

/// The Services that a route of the Gateway API names and that the cluster has not: istiod sends the calls all the same where
/// another cluster has one, and yet says that it refuses the route, whose calls the API would have it answer with an error.
fn without_the_routes_services(migration: &Migration, world: &World) -> Vec<String> {
    if migration.gateway_route.is_none() {
        return Vec::new();
    }
    let sides = [
        (Some(&migration.service), &world.service),
        (migration.pods.service.as_ref(), &world.pods_service),
    ];
    let missing = sides.into_iter().filter(|(_, found)| found.is_none());
    let told = missing.filter_map(|(name, _)| {
        Some(format!(
            "there is no Service {}/{}, and for a route of the Gateway API one of another cluster doesn't count: create it \
             here too, with the same ports; it may select nothing",
            migration.namespace, name?
        ))
    });
    told.collect()
}

/// The Services that have not the very port that a route of the Gateway API names.
fn without_the_routes_port(migration: &Migration, world: &World) -> Vec<String> {
    let Some(route) = &migration.gateway_route else {
        return Vec::new();
    };
    let port = route.port.get();
    let ports = |service: &Value| -> Vec<u64> {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        ports.filter_map(|port| port["port"].as_u64()).collect()
    };
    let namespace = &migration.namespace;
    let mut told = Vec::new();
    if world
        .service
        .as_ref()
        .is_some_and(|service| ports(service) != [u64::from(port)])
    {
        told.push(format!(
            "Service {namespace}/{} has another port than {port}, or more: a route of the Gateway API sends all calls to one \
             port: correct gateway_route.port, or take the others into a Service of their own",
            migration.service
        ));
    }
    let pods = migration.pods.service.as_ref().zip(world.pods_service.as_ref());
    if let Some((name, service)) = pods
        && !ports(service).contains(&u64::from(port))
    {
        told.push(format!(
            "Service {namespace}/{name} has no port {port}, to which gateway_route sends the pods' calls"
        ));
    }
    told
}

/// Why a port is not split.
fn of_port(migration: &Migration, name: &str, port: &Value) -> Option<String> {
    let (number, protocol) = (&port["port"], protocol(port));
    match (migration.protocol, protocol) {
        (Protocol::Http, Some(protocol)) if OF_CONNECTIONS.contains(&protocol) => Some(format!(
            "port {number} of {name} is {protocol}, and only calls of HTTP and gRPC are split: where it is one of those, say \
             so by appProtocol or by the port's name; where all ports are tcp, set protocol = \"tcp\" in the file; else take \
             it into a Service of its own"
        )),
        (Protocol::Http, _) | (Protocol::Tcp, Some("tcp")) => None,
        (Protocol::Tcp, declared) => Some(format!(
            "port {number} of {name} is {}, and the file's protocol is tcp: say tcp by appProtocol or by the port's name, or \
             take it into a Service of its own",
            declared.unwrap_or("not declared, so that each proxy finds out by itself")
        )),
    }
}

/// The declared protocol; absent: each proxy finds out by itself.
fn protocol(port: &Value) -> Option<&str> {
    if port["protocol"] == "UDP" {
        return Some("udp");
    }
    let declared = port["appProtocol"].as_str();
    declared.or_else(|| port["name"].as_str()?.split('-').next())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    fn told(spec: Value) -> String {
        told_of(HOSTS, spec)
    }

    fn told_of(file: &str, spec: Value) -> String {
        let world = World {
            service: Some(json!({ "spec": spec })),
            ..World::default()
        };
        let told = unsplit(&migration(file), &world);
        assert!(told.iter().all(|(forbids, _)| *forbids == Forbids::Everything));
        told.into_iter()
            .map(|(_, problem)| problem)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn other_service_of_the_vm_is_named() {
        let service =
            |name: &str, labels: Value| json!({ "metadata": { "name": name }, "spec": { "selector": labels } });
        let mut world = World {
            cluster: "one".to_owned(),
            group: Some(json!({ "spec": { "metadata": { "labels": { "app": "catalog", "vm": "1" } } } })),
            services: vec![
                service("catalog", json!({ "app": "catalog" })),
                service("reviews", json!({ "vm": "1" })),
                service("catalog-pods", json!({ "app": "catalog-pods" })),
                service("external", Value::Null),
            ],
            ..World::default()
        };
        let told = others_of_the_vm(&migration(HOSTS), &world);
        assert!(
            told.len() == 1 && told[0].contains("one: Service boutique/reviews selects"),
            "{told:?}"
        );
        world.group = None;
        assert!(others_of_the_vm(&migration(HOSTS), &world).is_empty());
    }

    #[test]
    fn ports_of_http_and_grpc_are_split_and_no_others() {
        for port in [
            json!({ "port": 80, "name": "http" }),
            json!({ "port": 80, "name": "grpc-web-x", "protocol": "TCP" }),
            json!({ "port": 80, "name": "tcp", "appProtocol": "grpc" }),
            json!({ "port": 80, "name": "catalog" }),
            json!({ "port": 80 }),
        ] {
            assert_eq!(told(json!({ "ports": [port] })), "");
        }
        for port in [
            json!({ "port": 80, "name": "tcp-catalog" }),
            json!({ "port": 80, "name": "http", "appProtocol": "tls" }),
            json!({ "port": 80, "name": "http", "protocol": "UDP" }),
        ] {
            let told = told(json!({ "ports": [{ "port": 81, "name": "http" }, port] }));
            assert!(told.starts_with("port 80 of Service boutique/catalog is "), "{told}");
        }
    }

    #[test]
    fn connections_are_split_where_every_port_is_tcp() {
        let file = format!("protocol = 'tcp'\n{HOSTS}");
        let tcp = json!({ "port": 5432, "name": "tcp-catalog" });
        let of = |ports: Value| protocol_of(&json!({ "spec": { "ports": ports } }));
        assert_eq!(told_of(&file, json!({ "ports": [tcp] })), "");
        assert_eq!(of(json!([tcp, { "port": 80, "appProtocol": "tcp" }])), Protocol::Tcp);
        assert_eq!(of(json!([])), Protocol::Http);
        for other in [
            json!({ "port": 80, "name": "http" }),
            json!({ "port": 80 }),
            json!({ "port": 80, "name": "tls" }),
        ] {
            assert_eq!(of(json!([tcp, other])), Protocol::Http);
            let told = told_of(&file, json!({ "ports": [tcp, other] }));
            assert!(told.starts_with("port 80 of Service boutique/catalog is "), "{told}");
        }
    }

    #[test]
    fn route_of_the_gateway_api_has_one_port_for_both_services() {
        let migration = migration(&format!(
            "gateway_route = {{ kind = 'GRPCRoute', port = 3550 }}\n{HOSTS}"
        ));
        let told = |vm: &[u16], pods: &[u16]| {
            let service = |ports: &[u16]| {
                let ports: Vec<Value> = ports
                    .iter()
                    .map(|port| json!({ "port": port, "name": "grpc" }))
                    .collect();
                Some(json!({ "spec": { "ports": ports } }))
            };
            let world = World {
                service: service(vm),
                pods_service: service(pods),
                ..World::default()
            };
            let told = unsplit(&migration, &world);
            told.into_iter()
                .map(|(_, problem)| problem)
                .collect::<Vec<_>>()
                .join("\n")
        };
        assert_eq!(told(&[3550], &[80, 3550]), "");
        for vm in [&[80][..], &[80, 3550]] {
            assert!(told(vm, &[3550]).starts_with("Service boutique/catalog has another port than 3550, or more"));
        }
        assert!(told(&[3550], &[80]).starts_with("Service boutique/catalog-pods has no port 3550"));
    }

    #[test]
    fn headless_service_is_not_split() {
        assert!(told(json!({ "clusterIP": "None" })).contains("is headless"));
    }
}
