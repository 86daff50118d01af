//! The split of calls in what istiod has given to one proxy: the routes of its route configurations. Pure.

use serde_json::Value;

use super::connections::weights;
use crate::migration::{Migration, Share};

/// All routes to `host`, in every route configuration (one for each port).
pub(super) fn routes(configs: &[Value], host: String) -> impl Iterator<Item = &Value> {
    let is_of_host = move |domain: &Value| {
        let domain = domain.as_str().unwrap_or_default();
        domain.rsplit_once(':').map_or(domain, |(name, _)| name) == host
    };
    let hosts = configs.iter().flat_map(|config| list(config, "virtualHosts"));
    let own = hosts.filter(move |virtual_host| list(virtual_host, "domains").any(&is_of_host));
    own.flat_map(|virtual_host| list(virtual_host, "routes"))
}

/// True when a route sends its calls as `share` says. istiod leaves out a side that gets none.
pub(super) fn is_split(route: &Value, migration: &Migration, share: Share) -> bool {
    weights(&route["route"], migration) == [share.of_vm(), share.of_pods()].map(u64::from)
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[key].as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::arrival::Sign;
    use crate::migration::tests::{HOSTS, migration};

    fn cluster(service: &str) -> String {
        format!("outbound|3550||{service}.boutique.svc.cluster.local")
    }

    /// As istiod answers for a GRPCRoute.
    fn dump(route: &Value) -> Value {
        let host = |name: &str, route: &Value| {
            let host = format!("{name}.boutique.svc.cluster.local");
            json!({ "name": format!("{host}:3550"), "domains": [host, name, "10.96.0.9"], "routes": [
                { "name": "boutique.catalog-migration.0", "match": { "prefix": "/" }, "route": route },
            ] })
        };
        let pods = json!({ "cluster": cluster("catalog-pods") });
        json!({ "configs": [{ "name": "3550", "virtualHosts": [host("catalog", route), host("catalog-pods", &pods)] }] })
    }

    #[test]
    fn calls_that_go_by_the_wanted_share_alone_have_arrived() {
        let migration = migration(&format!(
            "gateway_route = {{ kind = 'GRPCRoute', port = 3550 }}\n{HOSTS}"
        ));
        let has = |route: &Value, pods| {
            let sign = Sign::Calls(Share::try_from(pods).unwrap());
            sign.is_in(&dump(route), &migration).unwrap()
        };
        let split = json!({ "weightedClusters": { "clusters": [
            { "name": cluster("catalog"), "weight": 80 }, { "name": cluster("catalog-pods"), "weight": 20 },
        ] } });
        let [vm, pods, other] =
            ["catalog", "catalog-pods", "cart"].map(|service| json!({ "cluster": cluster(service) }));
        for (route, share) in [(&split, 20), (&vm, 0), (&pods, 100)] {
            assert!(has(route, share), "{route} is not {share} %");
        }
        for (route, share) in [
            (&split, 0),
            (&split, 50),
            (&vm, 20),
            (&vm, 100),
            (&pods, 0),
            (&other, 0),
        ] {
            assert!(!has(route, share), "{route} is {share} %");
        }
    }
}
