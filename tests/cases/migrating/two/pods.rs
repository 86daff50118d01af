//! `run`, with pods that crash, pods that never serve, and a Prometheus that is not there.

use anyhow::{Result, ensure};
use e2e::calls::{Calling, Load};
use e2e::network::Host;
use e2e::real::Networks;
use e2e::{PATIENCE, eventually, programs};
use rustix::process::Signal;

use super::super::callers::{PROMETHEUS, prometheus};
use super::super::moving::run;
use super::super::world::{WRONG_IMAGE, slice, wrong_pod};
use super::{Form, PODS_SERVICE, Two};
use crate::note;

/// Where a proxy publishes its figures.
const FIGURES: u16 = 15090;
const POLICY: &str = "{apiVersion: security.istio.io/v1, kind: AuthorizationPolicy,
    metadata: {name: closed, namespace: onlineboutique},
    spec: {selector: {matchLabels: {app: productcatalogservice-gke}}, action: DENY, rules: [{}]}}";
const FILE: &str = "
gate = { metrics = 'envoy', window = '10s', min_requests = 100, p99_slack = '1s' }
run = { steps = [50, 100], hold = '12s' }";

pub(super) fn bad() -> Result<()> {
    let mut two = Two::start(Form::Hosts, Networks::Two)?;
    two.write_file(FILE, &format!("prometheus = 'http://HOST:{PROMETHEUS}'"))?;
    let calling = two.pair.start_calls()?;
    two.desk().done(&["apply"])?;
    wrong_image(&two)?;
    // Nobody scrapes yet.
    two.desk().refused(&["run"], "no verdict")?;
    two.desk().expect([50, 50])?;
    two.desk().done(&["return"])?;
    for calling in calling {
        calling.stop()?.expect_all_answered()?;
    }

    let network = &two.pair.network;
    let _prometheus = [
        prometheus(network, Host::Pod, FIGURES)?,
        prometheus(network, Host::SecondPod, FIGURES)?,
    ];
    closed(&two)?;
    hung(&two)?;
    let calling = two.pair.start_calls()?;
    crash(&two)?;
    lost("pods that crash at 50 %", calling)?;
    let calling = two.pair.start_calls()?;
    let told = run(&two.desk(), |_| Ok(()))?;
    ensure!(told.contains("at 50 % the gate said bad"), "{told}");
    two.desk().expect([100, 0])?;
    lost("pods of an image that never serves", calling)?;

    two.pair.catalog = two
        .pair
        .network
        .spawn(Host::SecondCatalog, "catalog", programs::productcatalog()?, &[])?;
    two.desk().done(&["undo"]).map(drop)
}

/// No pod is ready, and the only one waits for its image: it is named, and no call is moved.
fn wrong_image(two: &Two) -> Result<()> {
    let second = &two.pair.clusters[1].cluster;
    let slice = slice(PODS_SERVICE).replace(&format!("{PODS_SERVICE}-1"), &format!("{PODS_SERVICE}-pods"));
    second.apply(&wrong_pod(PODS_SERVICE))?;
    second.apply(&slice.replace("addresses:", "conditions: {ready: false}, addresses:"))?;
    for arguments in [["verify"].as_slice(), &["shift", "50"], &["run"]] {
        two.desk().refused(arguments, WRONG_IMAGE)?;
    }
    two.desk().expect([100, 0])?;
    two.expect("no call is moved", |shares| shares == [0.0, 0.0])?;
    second.delete(&wrong_pod(PODS_SERVICE))?;
    two.pair.serve_pod_as(PODS_SERVICE)?;
    two.wait_for_both_sides()
}

/// A policy of the pods' own denies every call.
fn closed(two: &Two) -> Result<()> {
    let second = &two.pair.clusters[1].cluster;
    second.apply(POLICY)?;
    let calling = two.pair.start_calls()?;
    let told = run(&two.desk(), |_| Ok(()))?;
    ensure!(told.contains("at 50 % the gate said bad"), "{told}");
    two.desk().expect([100, 0])?;
    lost("pods that a policy denies", calling)?;
    second.delete(POLICY)?;
    serves(two)
}

/// The pods take calls and answer none.
fn hung(two: &Two) -> Result<()> {
    let calling = two.pair.start_calls()?;
    two.pair.catalog.signal(Signal::STOP)?;
    let told = run(&two.desk(), |_| Ok(()))?;
    ensure!(told.contains("at 50 % the gate said bad"), "{told}");
    two.desk().expect([100, 0])?;
    lost("pods that hang", calling)?;
    two.pair.catalog.signal(Signal::CONT)?;
    serves(two)
}

/// Waits until a call of the pods' own Service is answered.
fn serves(two: &Two) -> Result<()> {
    let load = Load::on(format!("{PODS_SERVICE}.onlineboutique:3550")).as_fast_as_answered(5, 1);
    eventually("the pods serve", PATIENCE, || {
        load.run(&two.pair.network, Host::SecondPod)?.expect_all_answered()
    })
}

/// The pods are killed once they were good.
fn crash(two: &Two) -> Result<()> {
    let mut is_up = true;
    let told = run(&two.desk(), |line| {
        let dies = is_up && line.contains("at 50 %: good");
        is_up &= !dies;
        if dies {
            two.pair.catalog.signal(Signal::KILL)
        } else {
            Ok(())
        }
    })?;
    ensure!(!is_up, "the pods were never good: {told}");
    ensure!(told.contains("at 50 % the gate said bad"), "{told}");
    two.desk().expect([100, 0])
}

/// Calls that were not answered are told, and after the return there are none.
fn lost(what: &str, calling: [Calling; 2]) -> Result<()> {
    for calling in calling {
        let calls = calling.stop()?;
        let first = calls.failed().map(|call| call.at).fold(f64::MAX, f64::min);
        let last = calls.failed().map(|call| call.at).fold(0.0, f64::max);
        let count = calls.failed().count();
        note(
            what,
            &format!("{count} of {} calls lost in {:.1} s", calls.0.len(), last - first),
        );
        ensure!(count > 0, "{what}: no call was lost");
        // The last second had none but the VM.
        ensure!(last < calls.last() - 1.0, "{calls}");
    }
    Ok(())
}
