//! istiod fails, on command: the VM serves on, says what is wrong, and goes on once it is over.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::istiod::{Fault, PeerAuthentication, Service};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::Settings;
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::stand_in_only;

pub(crate) fn trials() -> Vec<Trial> {
    let case = |name: &str, case: fn(&mut Mesh, Fault) -> Result<()>, fault| {
        stand_in_only(&format!("{name} (fault: {fault:?})"), move || {
            with_mesh(Kind::StandIn, Settings::default(), |mesh| case(mesh, fault))
        })
    };
    let mut trials = Vec::new();
    for fault in [Fault::Refuse, Fault::Hang, Fault::Garbage] {
        trials.push(case(
            "calls go on while discovery fails, and it comes back",
            discovery,
            fault,
        ));
        trials.push(case(
            "the start says that the CA fails, and goes on after",
            first_certificate,
            fault,
        ));
    }
    trials.push(case(
        "calls go on while a renewal fails, and it is made up for",
        renewal,
        Fault::Garbage,
    ));
    trials
}

fn discovery(mesh: &mut Mesh, fault: Fault) -> Result<()> {
    let _agent = mesh.join()?;
    let state = mesh.control_plane.stand_in()?;
    let calling = mesh.start_calls(50)?;
    let opened = state.streams_opened();
    state.set_fault(Service::Ads, Some(fault));
    state.drop_streams();
    eventually("the agent to see the fault", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let again = state.streams_opened() > opened;
        ensure!(again || status["xds"]["connected_to"].is_null(), "{status}");
        Ok(())
    })?;
    calling.wait_for(calling.so_far().last() + 2.0)?;

    state.set_fault(Service::Ads, None);
    state.drop_streams();
    let accepted = state.accepted("Listener");
    eventually("configuration to flow again", PATIENCE, || {
        state.set_peer_authentication(PeerAuthentication::Strict);
        ensure!(state.accepted("Listener") > accepted, "no listener was accepted");
        Ok(())
    })?;
    mesh.wait_until_healthy(true)?;
    calling.stop()?.expect_all_answered()
}

fn first_certificate(mesh: &mut Mesh, fault: Fault) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    state.set_fault(Service::Ca, Some(fault));
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    let cause = match fault {
        Fault::Refuse => "told to refuse",
        Fault::Hang => "no answer within",
        Fault::Garbage => "gave an unusable answer",
    };
    problem(mesh, &["no certificate yet", cause])?;
    ensure!(state.certificates().is_empty(), "the CA has answered");
    state.set_fault(Service::Ca, None);
    agent.wait_until_ready(&mesh.network)?;
    mesh.wait_until_healthy(true)
}

fn renewal(mesh: &mut Mesh, fault: Fault) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    state.set_certificate_lifetime(Duration::from_secs(30));
    let _agent = mesh.join()?;
    let calling = mesh.start_calls(50)?;
    state.set_fault(Service::Ca, Some(fault));
    problem(mesh, &["is not renewed"])?;
    state.set_fault(Service::Ca, None);
    eventually("the renewal", PATIENCE, || {
        ensure!(state.certificates().len() > 1, "none yet");
        Ok(())
    })?;
    calling.stop()?.expect_all_answered()
}

/// Waits until one of the problems in `status` has all these words.
fn problem(mesh: &Mesh, words: &[&str]) -> Result<()> {
    eventually(format!("status to say {words:?}"), PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let mut problems = status["health"]["problems"].as_array().into_iter().flatten();
        let told = problems.any(|problem| words.iter().all(|word| problem.to_string().contains(word)));
        ensure!(told, "{status}");
        Ok(())
    })
}
