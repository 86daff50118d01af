//! Properties of findings, whatever a cluster holds.

use super::world::World;
use super::{judge, past_the_split};
use crate::fuzz::{MIGRATIONS, documents, json, list};
use crate::objects::{GRPC_ROUTES, HTTP_ROUTES};

/// Two clusters' objects, by their names in `World`.
pub(crate) fn cluster(input: &[u8]) {
    let mut clusters = documents(input);
    let worlds = ["one", "two"].map(|name| {
        let found = json(clusters.next());
        let one = |key: &str| found.get(key).filter(|it| !it.is_null()).cloned();
        let routes = |key: &str, kind| list(&found, key).into_iter().map(move |route| (kind, route));
        World {
            cluster: name.to_owned(),
            service: one("service"),
            pods_service: one("pods_service"),
            services: list(&found, "services"),
            pods: list(&found, "pods"),
            slices: list(&found, "slices"),
            entries: list(&found, "entries"),
            group: one("group"),
            virtual_services: list(&found, "virtual_services"),
            rules: list(&found, "rules"),
            gateway_routes: routes("grpc", GRPC_ROUTES).chain(routes("http", HTTP_ROUTES)).collect(),
            policies: list(&found, "policies"),
            root: found["root"].as_str().map(str::to_owned),
        }
    });
    for migration in &*MIGRATIONS {
        for finding in judge::all(migration, &worlds) {
            assert!(["all", "one", "two"].contains(&finding.cluster.as_str()));
        }
        for world in &worlds {
            past_the_split(migration, world);
        }
    }
}
