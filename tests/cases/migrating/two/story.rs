//! From the first object to a VM that is gone, counted at the callers.

use anyhow::{Result, ensure};
use e2e::real::Networks;
use e2e::{PATIENCE, eventually};

use super::super::desk::end;
use super::{Form, PODS_SERVICE, SERVICE, Two};
use crate::note;

/// A share of which the calls of a minute tell within a point: of 10,000 three standard deviations are 0.9 points.
const MEASURED: (f64, u64) = (10.0, 10_000);
/// Of 16,000 calls three standard deviations of one fifth are 0.95 points.
const MEASURED_ANEW: (f64, u64) = (20.0, 16_000);

pub(super) fn told(form: Form, networks: Networks) -> Result<()> {
    let mut two = Two::start(form, networks)?;
    let calling = match form {
        Form::Connections => two.pair.start_connections()?,
        _ => two.pair.start_calls()?,
    };
    let desk = two.desk();
    desk.done(&["apply"])?;
    if form == Form::Subsets {
        // Not sooner: without the split, pods behind the VM's Service take calls by themselves.
        two.pair.serve_pod_as(SERVICE)?;
    }
    two.wait_for_both_sides()?;
    match form {
        Form::Hosts | Form::Subsets => {
            measured(&two, MEASURED)?;
            for arguments in [["shift", "50"].as_slice(), &["return"], &["complete"], &["return"]] {
                desk.done(arguments)?;
            }
        }
        Form::GrpcRoute | Form::HttpRoute => {
            measured(&two, MEASURED_ANEW)?;
            refused(&two)?;
            there_and_back(&two)?;
        }
        Form::Connections => {
            measured(&two, MEASURED_ANEW)?;
            there_and_back(&two)?;
        }
    }
    desk.done(&["complete"])?;
    retire(&two)?;
    two.pair.agent.stop()?;
    for calling in calling {
        // Of connections that die with the VM.
        calling.wait_for(calling.so_far().last() + 5.0)?;
        let calls = calling.stop()?;
        note("calls", &calls.0.len().to_string());
        calls.expect_all_answered()?;
    }
    Ok(())
}

/// The pods get the share that they are given, within a point.
fn measured(two: &Two, (wanted, count): (f64, u64)) -> Result<()> {
    two.desk().done(&["shift", &wanted.to_string()])?;
    let shares = two.shares(count)?;
    note(
        &format!("the pods' part of {wanted} % by cluster"),
        &format!("{shares:.2?}"),
    );
    ensure!(
        shares.iter().all(|share| (share - wanted).abs() <= 1.0),
        "the pods get {shares:?} of each cluster's calls, not {wanted}"
    );
    Ok(())
}

/// istiod's refusal of a route is told, and that it takes the route again.
fn refused(two: &Two) -> Result<()> {
    let words = "Kubernetes: pods get 20 %";
    let reason = "istio.io/gateway-controller refuses it: ResolvedRefs is false: BackendNotFound";
    let service =
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: {PODS_SERVICE}, namespace: onlineboutique}}}}");
    two.pair.clusters[0].cluster.delete(&service)?;
    for verb in ["status", "verify"] {
        eventually(format!("`{verb}` says why"), PATIENCE, || {
            two.desk().refused(&[verb], reason)
        })?;
    }
    two.apply_service(0, PODS_SERVICE)?;
    eventually("the route is taken", PATIENCE, || {
        let status = two.desk().done(&["status"])?;
        ensure!(status.contains(words), "{status}");
        Ok(())
    })
}

/// All calls go to the pods, back, on without a split, and with one again.
fn there_and_back(two: &Two) -> Result<()> {
    for (arguments, wanted) in [
        (["shift", "100"].as_slice(), 100.0),
        (&["return"], 0.0),
        (&["undo"], 0.0),
        (&["apply"], 0.0),
    ] {
        two.desk().done(arguments)?;
        two.expect(&format!("{wanted} % after {arguments:?}"), |shares| {
            shares == [wanted; 2]
        })?;
    }
    Ok(())
}

/// With what Kubernetes' controller makes of the Service once it selects the pods.
fn retire(two: &Two) -> Result<()> {
    let desk = two.desk();
    let retire = desk.spawn(&["retire"])?;
    if two.form != Form::Subsets {
        eventually("a Service that selects the pods", PATIENCE, || {
            let service = desk.clusters[1].get("/api/v1/namespaces/onlineboutique/services/productcatalogservice")?;
            let selected = &service["spec"]["selector"]["app"];
            ensure!(selected == PODS_SERVICE, "it selects {selected}");
            Ok(())
        })?;
        two.pair.serve_pod_as(SERVICE)?;
    }
    let ended = end(retire)?;
    ensure!(ended.is_success, "{ended:?}");
    Ok(())
}
