//! Answers of `verify` before a call is moved, about five versions that are each another one, and of what callers have.

use std::fs;

use anyhow::{Result, ensure};
use e2e::network::{EtcView, Host, Network};
use e2e::process::Process;
use e2e::{PATIENCE, eventually, programs};
use serde_json::json;

use super::gate::{GOOD, Prometheus};
use super::world::{ACCOUNT, WRONG_IMAGE, World, pod, slice, wrong_pod};

const ISTIOD: &str = "istiod = '10.200.0.2:15012'";
/// The calls, and none of them says where the VM is.
const CALLS: &str = "
headers = ['x-version']
repeat = 3
latency_slack = '300ms'
calls = [
  { grpc = '/hipstershop.ProductCatalogService/GetProduct', message = '0a0a4f4c4a4345535043375a' },
  { grpc = '/hipstershop.ProductCatalogService/GetProduct', message = '0a046e6f6e65' },
  { grpc = '/hipstershop.ProductCatalogService/SearchProducts', message = '0a046c616d70' },
]";
const FAULTS: [(&str, &str); 5] = [
    ("data", "GetProduct: answer differs at byte"),
    ("code", "GetProduct: status is Internal (13), the VM's NotFound (5)"),
    ("header", "GetProduct: header x-version is \"2\", the VM's \"1\""),
    ("latency", "GetProduct: half of the answers take more than"),
    (
        "method",
        "SearchProducts: status is Unimplemented (12), the VM's Ok (0)",
    ),
];

pub(super) fn answers() -> Result<()> {
    let world = World::start()?;
    let catalog = |host, port: u16, arguments: &[&str]| -> Result<Process> {
        let mut command = world.network.command(host, EtcView::Plain, programs::productcatalog()?);
        command.args(["--port", &port.to_string()]).args(arguments);
        Process::spawn(&format!("catalog-{port}@{host}"), command, world.network.folder())
    };
    let mut running = vec![catalog(Host::Vm, 3550, &[])?, catalog(Host::Outside, 3550, &[])?];
    for (port, (fault, _)) in (3551..).zip(FAULTS) {
        running.push(catalog(Host::Outside, port, &["--fault", fault])?);
    }
    with_verify(&world, 3550)?;
    world.done(&["apply"])?;
    eventually("all servers", PATIENCE, || world.done(&["verify"]).map(drop))?;

    for (port, (_, words)) in (3551..).zip(FAULTS) {
        with_verify(&world, port)?;
        let told = world.ctl(&["run"])?;
        ensure!(!told.is_success && told.text.contains(words), "{told:?}");
        ensure!(
            told.text.contains("`run` moves no call: VM and pods answer"),
            "{told:?}"
        );
        world.expect([100, 0])?;
    }
    let _prometheus = Prometheus::start(&world, [GOOD; 2])?;
    let told = world.done(&["run", "--skip-verify", "seen by hand"])?;
    ensure!(told.contains("seen by hand"), "{told}");
    world.expect([0, 100])
}

/// As the file is, with the calls, the pods at a port, and one step for `run`.
fn with_verify(world: &World, port: u16) -> Result<()> {
    let prometheus = "prometheus = 'http://127.0.0.1:9090'";
    let more = "gate = { window = '1s' }\nrun = { steps = [100], hold = '1s' }";
    world.write_file(more, prometheus)?;
    let pods = Network::address(Host::Outside, port);
    let text = fs::read_to_string(world.file())?.replace("name = 'two'", &format!("name = 'two'\n{prometheus}"));
    fs::write(world.file(), format!("{text}\n[verify]\npods = '{pods}'{CALLS}\n"))?;
    Ok(())
}

pub(super) fn wrong_image() -> Result<()> {
    let world = World::start()?;
    with_verify(&world, 3550)?;
    world.done(&["apply"])?;
    let service = "productcatalogservice-gke";
    let none = slice(service).replace("addresses:", "conditions: {ready: false}, addresses:");
    world.clusters[1].apply(&wrong_pod(service))?;
    // Beside it another one is ready.
    let told = world.done(&["plan"])?;
    ensure!(told.contains(&format!("two: note: {WRONG_IMAGE}")), "{told}");
    for cluster in &world.clusters {
        cluster.apply(&none)?;
    }
    let told = world.done(&["plan"])?;
    ensure!(
        told.contains(&format!("two: forbids calls to the pods: {WRONG_IMAGE}")),
        "{told}"
    );
    for arguments in [
        ["verify"].as_slice(),
        &["shift", "20"],
        &["run", "--skip-verify", "not asked"],
    ] {
        world.refused(arguments, WRONG_IMAGE)?;
    }
    world.expect([100, 0])
}

pub(super) fn reach() -> Result<()> {
    let world = World::start()?;
    world.write_file("", ISTIOD)?;
    world.clusters[0].apply(ACCOUNT)?;
    world.clusters[0].apply(&pod("cart"))?;
    let has = |sides: &[(&str, &str)]| {
        let loads = sides.iter().map(|(service, mode)| {
            let metadata = json!({ "filterMetadata": { "envoy.transport_socket_match": { "tlsMode": mode } } });
            let endpoint = json!({ "address": { "socketAddress": { "address": "10.200.0.9", "portValue": 15443 } } });
            json!({ "clusterName": format!("outbound|3550||{service}.onlineboutique.svc.cluster.local"),
                "endpoints": [{ "lbEndpoints": [{ "endpoint": endpoint, "metadata": metadata }] }] })
        });
        let dump = json!({ "configs": loads.collect::<Vec<_>>() });
        world.istiod.state().set_dump("cart.onlineboutique", &dump.to_string());
    };
    let (vm, pods) = ("productcatalogservice", "productcatalogservice-gke");
    has(&[(vm, "istio")]);
    world.refused(&["verify"], "cart.onlineboutique has no endpoint of the pods")?;
    has(&[(vm, "disabled"), (pods, "istio")]);
    world.refused(
        &["verify"],
        "cart.onlineboutique calls 10.200.0.9:15443 of the VM without mutual TLS",
    )?;
    has(&[(vm, "istio"), (pods, "istio")]);
    let told = world.done(&["verify"])?;
    for words in [
        "one: 1 proxies that call have the pods by mutual TLS: 10.200.0.9:15443",
        "two: what callers' proxies have is not known, because the file has no `istiod` to ask",
        "whether both sides answer alike is not known, because the file has no `verify`",
    ] {
        ensure!(told.contains(words), "{told}");
    }
    Ok(())
}
