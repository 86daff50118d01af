//! A service whose calls are connections.

use anyhow::{Result, ensure};
use e2e::{PATIENCE, eventually};
use serde_json::{Value, json};

use super::story::until_asked_again;
use super::world::{ACCOUNT, ROUTE, World, end, pod};

const SERVICE: &str =
    "{apiVersion: v1, kind: Service, metadata: {name: productcatalogservice, namespace: onlineboutique},
    spec: {ports: [{name: tcp, port: 3550}], selector: {app: productcatalogservice}}}";

pub(super) fn split() -> Result<()> {
    let world = World::start()?;
    world.write_file("protocol = 'tcp'", "istiod = '10.200.0.2:15012'")?;
    world.refused(&["plan"], "is grpc, and the file's protocol is tcp")?;
    for cluster in &world.clusters {
        cluster.apply(SERVICE)?;
    }
    world.clusters[0].apply(ACCOUNT)?;
    world.clusters[0].apply(&pod("cart"))?;
    let before = world.objects()?;

    give(&world, Some([100, 0]));
    world.done(&["apply"])?;
    let mut shift = world.spawn(&["shift", "20"])?;
    eventually("weights in both clusters", PATIENCE, || expect(&world, [80, 20]))?;
    until_asked_again(&world)?;
    ensure!(shift.try_wait()?.is_none(), "the shift ended before the proxy had it");
    give(&world, Some([80, 20]));
    let ended = end(shift)?;
    ensure!(ended.is_success && ended.text.contains("pods get 20 %"), "{ended:?}");
    world.done(&["status"])?;
    world.refused(&["run"], "connections have no result to judge")?;

    give(&world, Some([100, 0]));
    world.done(&["return"])?;
    expect(&world, [100, 0])?;
    give(&world, None);
    world.done(&["undo"])?;
    ensure!(world.objects()? == before, "an object is not as before");
    Ok(())
}

/// Has istiod say that a caller's listener splits its connections so; `None`: not at all.
fn give(world: &World, weights: Option<[u8; 2]>) {
    let cluster = |service: &str| format!("outbound|3550||{service}.onlineboutique.svc.cluster.local");
    let vm = cluster("productcatalogservice");
    let proxy = match weights {
        Some([of_vm, of_pods]) => {
            let sides = [(vm, of_vm), (cluster("productcatalogservice-gke"), of_pods)];
            // istiod leaves out a side that gets none.
            let sides = sides.into_iter().filter(|(_, weight)| *weight > 0);
            let clusters: Vec<Value> = sides
                .map(|(name, weight)| json!({ "name": name, "weight": weight }))
                .collect();
            json!({ "statPrefix": "productcatalogservice-migration.onlineboutique", "weightedClusters": { "clusters": clusters } })
        }
        None => json!({ "statPrefix": vm, "cluster": vm }),
    };
    let filter = json!({ "name": "envoy.filters.network.tcp_proxy", "typedConfig": proxy });
    let dump = json!({ "configs": [{ "name": "10.96.0.9_3550", "filterChains": [{ "filters": [filter] }] }] });
    world.istiod.state().set_dump("cart.onlineboutique", &dump.to_string());
}

/// The weights of VM and pods, as routes of TCP and no others.
fn expect(world: &World, weights: [u64; 2]) -> Result<()> {
    for cluster in &world.clusters {
        let spec = &cluster.get(ROUTE)?["spec"];
        let now = [0, 1].map(|side: usize| spec["tcp"][0]["route"][side]["weight"].as_u64().unwrap_or(u64::MAX));
        ensure!(now == weights && spec["http"].is_null(), "{spec}");
    }
    Ok(())
}
