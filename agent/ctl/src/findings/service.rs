//! What the Service that callers name has that no route of HTTP splits. Pure.

use serde_json::Value;

use super::Forbids;
use super::world::World;
use crate::migration::Migration;

/// Protocols of Istio (istio.io "Protocol Selection") whose calls are connections: a proxy has no route for them whose
/// arrival could be asked after.
const OF_CONNECTIONS: [&str; 8] = ["https", "mongo", "mysql", "postgres", "redis", "tcp", "tls", "udp"];

pub(super) fn unsplit(migration: &Migration, world: &World) -> Vec<(Forbids, String)> {
    let Some(service) = &world.service else {
        return Vec::new();
    };
    let name = format!("Service {}/{}", migration.namespace, migration.service);
    let mut told = Vec::new();
    if service["spec"]["clusterIP"] == "None" {
        told.push(format!(
            "{name} is headless, so that callers pick an endpoint by themselves: give it an address"
        ));
    }
    for port in service["spec"]["ports"].as_array().into_iter().flatten() {
        if let Some(protocol) = protocol(port).filter(|protocol| OF_CONNECTIONS.contains(protocol)) {
            told.push(format!(
                "port {} of {name} is {protocol}, and only calls of HTTP and gRPC are split: where it is one of those, say \
                 so by appProtocol or by the port's name, else take it into a Service of its own",
                port["port"]
            ));
        }
    }
    told.into_iter().map(|problem| (Forbids::Everything, problem)).collect()
}

/// What is declared; absent: each proxy finds out by itself.
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
        let world = World {
            service: Some(json!({ "spec": spec })),
            ..World::default()
        };
        let told = unsplit(&migration(HOSTS), &world);
        assert!(told.iter().all(|(forbids, _)| *forbids == Forbids::Everything));
        told.into_iter()
            .map(|(_, problem)| problem)
            .collect::<Vec<_>>()
            .join("\n")
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
    fn headless_service_is_not_split() {
        assert!(told(json!({ "clusterIP": "None" })).contains("is headless"));
    }
}
