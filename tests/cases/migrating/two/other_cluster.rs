//! A second cluster that only calls: with what `manifests --other-cluster` prints its pods reach the VM. No migration.

use anyhow::Result;
use e2e::calls::Load;
use e2e::network::Host;
use e2e::real::{Networks, Pair};
use e2e::{PATIENCE, eventually};

use super::{PODS_SERVICE, SERVICE};
use crate::kubernetes::manifests::printed;

/// Who calls.
const CALLER: &str = "spiffe://cluster.local/ns/onlineboutique/sa/cartservice";

/// Knowledge of the VM that the second cluster has by itself, and its way there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// The second cluster's istiod reads the VM's cluster, on another network.
    RemoteSecret,
    /// Nothing, on the same network.
    Address,
    /// Nothing, on another network.
    Gateway,
}

pub(super) fn calls(way: Way) -> Result<()> {
    let networks = if way == Way::Address {
        Networks::One
    } else {
        Networks::Two
    };
    let pair = Pair::start(networks, PODS_SERVICE, way == Way::RemoteSecret)?;
    let second = &pair.clusters[1].cluster;
    let service =
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: {SERVICE}, namespace: onlineboutique}}}}");
    second.delete(&service)?;
    let (vm, gateway) = (Host::Vm.ipv4().to_string(), Host::Gateway.ipv4().to_string());
    let options: &[&str] = match way {
        Way::RemoteSecret => &["--remote-secret"],
        Way::Address => &["--address", &vm],
        Way::Gateway => &["--gateway", &gateway],
    };
    second.apply(&printed(&[options, &["--other-cluster"]].concat())?)?;
    let catalog = Load::on(format!("{SERVICE}.onlineboutique:3550"));
    answered(&pair, Host::SecondPod, &catalog, CALLER)?;
    answered(&pair, Host::Pod, &catalog, CALLER)?;
    if way == Way::RemoteSecret {
        vm_calls_both(&pair)?;
    }
    Ok(())
}

/// The VM calls a service of either cluster by its name.
fn vm_calls_both(pair: &Pair) -> Result<()> {
    pair.clusters[1].cluster.apply(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{name: {PODS_SERVICE}, namespace: onlineboutique}},
          spec: {{ports: [{{name: grpc, port: 3550}}], selector: {{app: {PODS_SERVICE}}}}}}}"
    ))?;
    pair.serve_pod_as(PODS_SERVICE)?;
    let vm = "spiffe://cluster.local/ns/onlineboutique/sa/productcatalog";
    for target in [
        "cartservice.onlineboutique:7070".to_owned(),
        format!("{PODS_SERVICE}.onlineboutique:3550"),
    ] {
        answered(pair, Host::Vm, &Load::on(target), vm)?;
    }
    Ok(())
}

/// 200 calls, each answered and each by mutual TLS, once one is.
fn answered(pair: &Pair, from: Host, load: &Load, caller: &str) -> Result<()> {
    let first = load.clone().as_fast_as_answered(1, 1);
    eventually(format!("a first answer to {from}"), PATIENCE, || {
        first.run(&pair.network, from)?.expect_all_answered()
    })?;
    let calls = load.run(&pair.network, from)?;
    calls.expect_all_answered()?;
    calls.expect_caller(caller)
}
