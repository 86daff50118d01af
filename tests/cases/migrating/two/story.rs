//! From the first object to a VM that is gone, counted at the callers.

use anyhow::{Result, ensure};
use e2e::real::Networks;
use e2e::{PATIENCE, eventually};

use super::super::desk::end;
use super::{Form, PODS_SERVICE, SERVICE, Two};
use crate::note;

/// A share of which the calls of a minute tell within a point: of 10,000 three standard deviations are 0.9 points.
const MEASURED: (f64, u64) = (10.0, 10_000);

pub(super) fn told(form: Form, networks: Networks) -> Result<()> {
    let mut two = Two::start(form, networks)?;
    let calling = two.pair.start_calls()?;
    let desk = two.desk();
    desk.done(&["apply"])?;
    if form == Form::Subsets {
        // Not sooner: without the split, pods behind the VM's Service take calls by themselves.
        two.pair.serve_pod_as(SERVICE)?;
    }
    two.wait_for_both_sides()?;
    desk.done(&["shift", "10"])?;
    let (wanted, count) = MEASURED;
    let shares = two.shares(count)?;
    note("the pods' part of 10 % by cluster", &format!("{shares:.2?}"));
    ensure!(
        shares.iter().all(|share| (share - wanted).abs() <= 1.0),
        "the pods get {shares:?} of each cluster's calls, not {wanted}"
    );
    for arguments in [
        ["shift", "50"].as_slice(),
        &["return"],
        &["complete"],
        &["return"],
        &["complete"],
    ] {
        desk.done(arguments)?;
    }
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

/// With what Kubernetes' controller makes of the Service once it selects the pods.
fn retire(two: &Two) -> Result<()> {
    let desk = two.desk();
    let retire = desk.spawn(&["retire"])?;
    if two.form == Form::Hosts {
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
