//! Deaths while calls are made, of those that serve none of them: the program, an istiod, an API server.

use anyhow::{Context, Result, ensure};
use e2e::calls::Calling;
use e2e::real::Networks;
use e2e::{PATIENCE, eventually};

use super::super::admission::Admission;
use super::super::broken_off::in_each_step;
use super::super::desk::end;
use super::{Form, Two};
use crate::note;

pub(super) fn lose_nothing() -> Result<()> {
    let mut two = Two::start(Form::Hosts, Networks::Two)?;
    let admission = Admission::start(&two.desk())?;
    let calling = two.pair.start_calls()?;
    in_each_step(&two.desk(), &admission)?;
    none_lost(&two, "kill -9 of the program in each step", calling)?;

    two.desk().done(&["apply"])?;
    let calling = two.pair.start_calls()?;
    istiod_dies(&mut two)?;
    none_lost(&two, "istiod of the second cluster is dead", calling)?;
    two.pair.clusters[1].start_istiod(&two.pair.network)?;
    two.desk().done(&["shift", "50"])?;

    let calling = two.pair.start_calls()?;
    two.expect("all have the share", |[one, two]| one > 30.0 && two > 30.0)?;
    api_server_dies(&mut two, &admission)?;
    none_lost(&two, "an API server dies between two writes", calling)
}

/// The calls, and the split after them, are told.
fn none_lost(two: &Two, what: &str, calling: [Calling; 2]) -> Result<()> {
    let shares = two.shares(400)?;
    for calling in calling {
        let calls = calling.stop()?;
        let (lost, all) = (calls.failed().count(), calls.0.len());
        note(
            what,
            &format!("{lost} of {all} calls lost; the pods now get {shares:?} %"),
        );
        calls.expect_all_answered().context(what.to_owned())?;
    }
    Ok(())
}

/// The proxies of a dead istiod keep what they have; the others go on.
fn istiod_dies(two: &mut Two) -> Result<()> {
    two.pair.clusters[1].kill_istiod()?;
    two.write_file("patience = '6s'", "")?;
    let words = "cluster second: after 6s these proxies don't have it";
    two.desk().refused(&["shift", "50"], words)?;
    two.desk().expect([50, 50])?;
    two.expect("the first cluster alone has the share", |[one, two]| {
        one > 30.0 && two == 0.0
    })?;
    two.write_file("", "")
}

/// Between the two writes of a step: the cluster that lives is put back.
fn api_server_dies(two: &mut Two, admission: &Admission) -> Result<()> {
    admission.hold();
    let desk = two.desk();
    let shift = desk.spawn(&["shift", "60"])?;
    admission.wait_for_write()?;
    eventually("the first cluster has it", PATIENCE, || {
        desk.expect_in(0, Some([40, 60]))
    })?;
    two.pair.clusters[1].cluster.kill()?;
    let ended = end(shift)?;
    let words = "cluster second may stay at 60 % while the others don't";
    ensure!(!ended.is_success && ended.text.contains(words), "{ended:?}");
    two.desk().expect_in(0, Some([50, 50]))?;
    admission.allow();
    two.desk().refused(&["return"], "not all clusters were brought back")?;
    two.desk().expect_in(0, Some([100, 0]))?;
    two.expect("the cluster that lives is back", |[one, two]| one == 0.0 && two > 30.0)?;
    two.pair.clusters[1].cluster.restart(&two.pair.network)?;
    two.desk().done(&["return"])?;
    two.expect("both are back", |shares| shares == [0.0, 0.0])
}
