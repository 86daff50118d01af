//! The split of connections in what istiod has given to one proxy: the TCP proxies of its listeners. Pure.

use serde_json::Value;

use crate::migration::{Migration, Share};
use crate::objects;

/// True when each of the split's TCP proxies has the weights of `share`, and none sends all connections to the service's host
/// as the mesh does without a split.
pub(super) fn are_split(listeners: &[Value], migration: &Migration, share: Share) -> bool {
    let prefix = objects::stat_prefix(migration);
    let meshs_own = format!("||{}", migration.host());
    proxies(listeners).all(|proxy| match proxy["statPrefix"] == prefix.as_str() {
        true => weights(proxy, migration) == [share.of_vm(), share.of_pods()].map(u64::from),
        false => !proxy["cluster"].as_str().is_some_and(|name| name.ends_with(&meshs_own)),
    })
}

/// True when a TCP proxy is the split's.
pub(super) fn has_split(listeners: &[Value], migration: &Migration) -> bool {
    let prefix = objects::stat_prefix(migration);
    proxies(listeners).any(|proxy| proxy["statPrefix"] == prefix.as_str())
}

/// The weights of VM and pods in a TCP proxy or the action of a route; a side of weight 0 is left out by istiod.
pub(super) fn weights(action: &Value, migration: &Migration) -> [u64; 2] {
    let clusters = action["weightedClusters"]["clusters"].as_array();
    objects::clusters(migration).map(|side| {
        let is_side = |name: &Value| name.as_str().is_some_and(|name| name.ends_with(&side));
        let of_side = clusters
            .into_iter()
            .flatten()
            .filter(|cluster| is_side(&cluster["name"]));
        let only = if is_side(&action["cluster"]) { 100 } else { 0 };
        let weights = of_side.filter_map(|cluster| cluster["weight"].as_u64());
        weights.fold(only, u64::saturating_add)
    })
}

/// Every TCP proxy that takes calls of the application: inbound ones have other names.
fn proxies(listeners: &[Value]) -> impl Iterator<Item = &Value> {
    let chains = listeners.iter().flat_map(|listener| {
        let chains = listener["filterChains"].as_array().into_iter().flatten();
        chains.chain(listener.get("defaultFilterChain"))
    });
    let filters = chains.flat_map(|chain| chain["filters"].as_array().into_iter().flatten());
    filters
        .filter(|filter| filter["name"] == "envoy.filters.network.tcp_proxy")
        .map(|filter| &filter["typedConfig"])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    fn listener(proxy: Value) -> Value {
        json!({ "name": "10.96.0.7_5432", "filterChains": [{ "filters": [
            { "name": "envoy.filters.network.tcp_proxy", "typedConfig": proxy },
        ] }] })
    }

    fn split(weights: &[(&str, u8)]) -> Value {
        let cluster = |(side, weight): &(&str, u8)| json!({ "name": format!("outbound|5432||{side}.boutique.svc.cluster.local"), "weight": weight });
        let clusters: Vec<Value> = weights.iter().map(cluster).collect();
        listener(json!({ "statPrefix": "catalog-migration.boutique", "weightedClusters": { "clusters": clusters } }))
    }

    fn own(side: &str) -> Value {
        let cluster = format!("outbound|5432||{side}.boutique.svc.cluster.local");
        listener(json!({ "statPrefix": cluster, "cluster": cluster }))
    }

    #[test]
    fn weights_of_the_wanted_share_alone_have_arrived() {
        let migration = migration(HOSTS);
        let share = |pods| Share::try_from(pods).unwrap();
        let at = |weights| [split(weights), own("catalog-pods")];
        let twenty = at(&[("catalog", 80), ("catalog-pods", 20)]);
        assert!(are_split(&twenty, &migration, share(20)));
        assert!(!are_split(&twenty, &migration, share(50)));
        assert!(are_split(&at(&[("catalog", 100)]), &migration, share(0)));
        assert!(are_split(&at(&[("catalog-pods", 100)]), &migration, share(100)));
        assert!(!are_split(&at(&[("catalog", 100)]), &migration, share(100)));
        assert!(has_split(&twenty, &migration));
    }

    #[test]
    fn meshs_own_way_is_no_split() {
        let migration = migration(HOSTS);
        let own = [own("catalog"), own("catalog-pods")];
        assert!(!are_split(&own, &migration, Share::NONE));
        assert!(!has_split(&own, &migration));
    }
}
