//! However the agent ends, the host is as it was.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::calls::Load;
use e2e::istiod::{Fault, Service};
use e2e::mesh::{ControlPlane, Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::snapshot::Snapshot;
use e2e::vm::{Application, Settings};
use libtest_mimic::Trial;

use crate::{both, stand_in_only};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::from(both("SIGTERM: calls in flight finish, the host is as before", |kind| {
        with_mesh(kind, Settings::default(), terminated)
    }));
    trials.push(stand_in_only(
        "SIGTERM: the host is as before, the application in a container",
        || {
            let settings = Settings {
                application: Application::Container,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, |mesh| stopped(mesh))
        },
    ));
    for (backend, etc) in [
        ("nftables", EtcView::Plain),
        ("iptables", EtcView::Plain),
        ("auto", EtcView::MountPoints),
    ] {
        let name = format!("kill -9, then revert: the host is as before ({backend}, /etc/hosts {etc:?})");
        trials.push(stand_in_only(&name, move || {
            let settings = Settings {
                backend,
                etc,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, reverted)
        }));
    }
    for sabotage in SABOTAGES {
        let name = format!("the start fails ({}): the host is as before", sabotage.name);
        trials.push(stand_in_only(&name, || {
            with_mesh(Kind::StandIn, Settings::default(), |mesh| sabotaged(mesh, sabotage))
        }));
    }
    trials
}

fn terminated(mesh: &mut Mesh) -> Result<()> {
    let before = snapshot(mesh)?;
    let mut agent = mesh.join()?;
    let slow = Load {
        product: "slow-3000".to_owned(),
        deadline: Duration::from_secs(15),
        ..mesh.calls_to_the_vm()
    };
    let in_flight = slow
        .at_rate(20, Duration::from_secs(1))
        .start(&mesh.network, Host::Pod)?;
    e2e::eventually("the calls to be in flight", Duration::from_secs(10), || {
        ensure!(in_flight.so_far().0.len() == 1, "the first has not ended");
        Ok(())
    })?;
    agent.stop()?;
    in_flight.finish()?.expect_all_answered()?;
    same_as(&before, mesh)
}

fn stopped(mesh: &Mesh) -> Result<()> {
    let before = snapshot(mesh)?;
    let mut agent = mesh.join()?;
    ensure!(snapshot(mesh)? != before, "the agent changed nothing");
    agent.stop()?;
    same_as(&before, mesh)
}

fn reverted(mesh: &mut Mesh) -> Result<()> {
    let before = snapshot(mesh)?;
    let mut agent = mesh.join()?;
    ensure!(snapshot(mesh)? != before, "the agent changed nothing");
    agent.kill()?;
    let output = mesh.vm.agent(&mesh.network, &["revert"])?;
    ensure!(output.status.success(), "revert: {output:?}");
    same_as(&before, mesh)?;
    // Nothing left to do is no failure.
    let output = mesh.vm.agent(&mesh.network, &["revert"])?;
    ensure!(output.status.success(), "the second revert: {output:?}");
    same_as(&before, mesh)
}

/// Soon: the kernel takes interfaces of containers away in its own time.
fn same_as(before: &Snapshot, mesh: &Mesh) -> Result<()> {
    e2e::eventually("the host to be as before", Duration::from_secs(5), || {
        before.expect_same(&snapshot(mesh)?)
    })
}

fn snapshot(mesh: &Mesh) -> Result<Snapshot> {
    Snapshot::of(&mesh.network, Host::Vm, mesh.vm.etc())
}

/// One step of the start, and how it is made to fail.
#[derive(Debug)]
struct Sabotage {
    name: &'static str,
    set_up: fn(&Mesh) -> Result<Option<TcpListener>>,
}

const SABOTAGES: &[Sabotage] = &[
    Sabotage {
        name: "the CA refuses",
        set_up: |mesh| istiod_fails(mesh, Service::Ca),
    },
    Sabotage {
        name: "discovery refuses",
        set_up: |mesh| istiod_fails(mesh, Service::Ads),
    },
    Sabotage {
        name: "the DNS port is taken",
        set_up: |mesh| taken(mesh, 15053),
    },
    Sabotage {
        name: "the readiness port is taken",
        set_up: |mesh| taken(mesh, 15020),
    },
    Sabotage {
        name: "Envoy's port is taken",
        set_up: |mesh| taken(mesh, 15006),
    },
    Sabotage {
        name: "Envoy ends at once",
        set_up: |mesh| {
            let envoy = mesh.vm.config().with_file_name("envoy");
            fs::remove_file(&envoy)?;
            fs::write(&envoy, "#!/bin/sh\nexit 3\n")?;
            fs::set_permissions(&envoy, fs::Permissions::from_mode(0o755))?;
            Ok(None)
        },
    },
    Sabotage {
        name: "the run folder is a file",
        set_up: |mesh| {
            fs::write(mesh.vm.run_folder(), "")?;
            Ok(None)
        },
    },
];

fn istiod_fails(mesh: &Mesh, service: Service) -> Result<Option<TcpListener>> {
    let ControlPlane::StandIn { istiod, .. } = &mesh.control_plane else {
        anyhow::bail!("only the stand-in fails on command");
    };
    istiod.state().set_fault(service, Some(Fault::Refuse));
    Ok(None)
}

fn taken(mesh: &Mesh, port: u16) -> Result<Option<TcpListener>> {
    let bind = || TcpListener::bind(("0.0.0.0", port)).context("failed to take the port");
    mesh.network.within(Host::Vm, bind).map(Some)
}

fn sabotaged(mesh: &Mesh, sabotage: &Sabotage) -> Result<()> {
    let before = snapshot(mesh)?;
    let _held = (sabotage.set_up)(mesh)?;
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    // It gives up, or says what is wrong and tries on until it is told to stop.
    let gave_up = e2e::eventually("the failure to show", Duration::from_secs(20), || {
        if agent.wait(Duration::ZERO).is_ok() {
            return Ok(true);
        }
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let problems = status["health"]["problems"].as_array().map_or(0, Vec::len);
        ensure!(
            status["agent"]["state"] == "running" && problems > 0,
            "status has no problem: {status}"
        );
        Ok(false)
    })?;
    if !gave_up {
        agent.stop()?;
    }
    same_as(&before, mesh)
}
