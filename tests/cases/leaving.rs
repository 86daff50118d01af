//! However the agent ends, the host is as it was, and callers have gone elsewhere before.

mod planned;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::calls::Load;
use e2e::istiod::{Fault, Service};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::snapshot::Snapshot;
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use rustix::process::Signal;

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
    trials.extend(planned::trials());
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
        let name = format!("the start fails at {}: the host is as before", sabotage.at);
        trials.push(stand_in_only(&name, || {
            let settings = Settings {
                application: sabotage.application,
                backend: sabotage.backend,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, |mesh| sabotaged(mesh, sabotage))
        }));
    }
    trials
}

fn terminated(mesh: &mut Mesh) -> Result<()> {
    let before = snapshot(mesh)?;
    let mut agent = mesh.join()?;
    mesh.wait_until_called()?;
    let slow = Load {
        product: "slow-3000".to_owned(),
        deadline: Duration::from_secs(15),
        ..mesh.calls_to_the_vm()
    };
    let in_flight = slow
        .at_rate(20, Duration::from_secs(1))
        .start(&mesh.network, Host::Pod)?;
    eventually("the calls to be in flight", PATIENCE, || {
        ensure!(!in_flight.so_far().0.is_empty(), "the first has not ended");
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
    eventually("the host to be as before", PATIENCE, || {
        before.expect_same(&snapshot(mesh)?)
    })
}

fn snapshot(mesh: &Mesh) -> Result<Snapshot> {
    Snapshot::of(&mesh.network, Host::Vm, mesh.vm.etc())
}

/// One step of the start, and how it is made to fail.
#[derive(Debug)]
struct Sabotage {
    at: &'static str,
    /// In the log, or in `status`.
    says: &'static str,
    set_up: fn(&mut Mesh) -> Result<Held>,
    application: Application,
    backend: &'static str,
}

/// Listener that keeps up the failure.
type Held = Option<TcpListener>;

const fn sabotage(at: &'static str, says: &'static str, set_up: fn(&mut Mesh) -> Result<Held>) -> Sabotage {
    Sabotage {
        at,
        says,
        set_up,
        application: Application::Process,
        backend: "nftables",
    }
}

/// For a program that changes rules: it does, and where it made a redirection says that it didn't.
const FAILS_AFTERWARDS: &str = r#"rules=$(cat); printf '%s\n' "$rules" | $REAL "$@" || exit
case "$1 $rules" in -c*) ;; *'-j REDIRECT'* | *'redirect to'*) echo 'failed on command' >&2; exit 1 ;; esac"#;

/// In the order of the start.
const SABOTAGES: &[Sabotage] = &[
    sabotage("the run folder", "paths.run", |mesh| {
        fs::write(mesh.vm.run_folder(), "")?;
        Ok(None)
    }),
    sabotage("the state folder", "paths.state", |mesh| {
        fs::write(mesh.vm.state_folder(), "")?;
        Ok(None)
    }),
    sabotage("status: 15020 is taken", "15020", |mesh| taken(mesh, 15020)),
    sabotage("status: its socket can't be made", "status.sock", |mesh| {
        obstructed(mesh, "status.sock")
    }),
    sabotage("hosts: /etc can't be written to", "/etc/hosts", |mesh| {
        mesh.vm.freeze_etc();
        Ok(None)
    }),
    sabotage("identity: the CA refuses", "told to refuse", |mesh| {
        istiod_fails(mesh, Service::Ca, Fault::Refuse)
    }),
    sabotage("identity: the CA hangs", "no certificate yet", |mesh| {
        istiod_fails(mesh, Service::Ca, Fault::Hang)
    }),
    sabotage("sds: its socket can't be made", "sds.sock", |mesh| {
        obstructed(mesh, "sds.sock")
    }),
    sabotage("xds: its socket can't be made", "xds.sock", |mesh| {
        obstructed(mesh, "xds.sock")
    }),
    sabotage("xds: discovery refuses", "told to refuse", |mesh| {
        istiod_fails(mesh, Service::Ads, Fault::Refuse)
    }),
    sabotage("dns: 15053 is taken", "15053", |mesh| taken(mesh, 15053)),
    sabotage("envoy: there is none", "check envoy.binary", |mesh| {
        fs::remove_file(mesh.vm.envoy())?;
        Ok(None)
    }),
    sabotage("envoy: it ends at once", "exit status: 3", |mesh| {
        let envoy = mesh.vm.envoy();
        fs::remove_file(&envoy)?;
        fs::write(&envoy, "#!/bin/sh\nexit 3\n")?;
        fs::set_permissions(&envoy, fs::Permissions::from_mode(0o755))?;
        Ok(None)
    }),
    sabotage("envoy: 15006 is taken", "15006", |mesh| taken(mesh, 15006)),
    sabotage(
        "intercept: nft puts the rules in and fails",
        "failed on command",
        |mesh| {
            mesh.vm.replace_program("nft", FAILS_AFTERWARDS)?;
            Ok(None)
        },
    ),
    Sabotage {
        backend: "iptables",
        ..sabotage(
            "intercept: ip6tables puts the rules in and fails",
            "failed on command",
            |mesh| {
                mesh.vm.replace_program("ip6tables-nft-restore", FAILS_AFTERWARDS)?;
                mesh.vm.replace_program("ip6tables-legacy-restore", FAILS_AFTERWARDS)?;
                Ok(None)
            },
        )
    },
    Sabotage {
        application: Application::Container,
        ..sabotage(
            "workload: there is no such image",
            "productcatalogservice:none",
            |mesh| {
                let config = fs::read_to_string(mesh.vm.config())?;
                fs::write(mesh.vm.config(), config.replace(":latest", ":none"))?;
                Ok(None)
            },
        )
    },
];

fn istiod_fails(mesh: &Mesh, service: Service, fault: Fault) -> Result<Held> {
    mesh.control_plane.stand_in()?.set_fault(service, Some(fault));
    Ok(None)
}

fn taken(mesh: &Mesh, port: u16) -> Result<Held> {
    let bind = || TcpListener::bind(("0.0.0.0", port)).context("failed to take the port");
    mesh.network.within(Host::Vm, bind).map(Some)
}

/// Somebody's folder is where the agent wants a file of its own.
fn obstructed(mesh: &Mesh, name: &str) -> Result<Held> {
    let folder = mesh.vm.run_folder().join(name);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("something"), "")?;
    Ok(None)
}

fn sabotaged(mesh: &mut Mesh, sabotage: &Sabotage) -> Result<()> {
    let before = snapshot(mesh)?;
    let _held = (sabotage.set_up)(mesh)?;
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    // It gives up, or says what is wrong and tries on until it is told to stop; by then it may have given up, too.
    eventually("the failure to show", PATIENCE, || {
        let ended = agent.wait(Duration::ZERO).is_ok();
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let told = format!("{}{}", agent.output(), status["health"]["problems"]);
        ensure!(
            told.contains(sabotage.says),
            "nothing says {}: ended: {ended}, {told}",
            sabotage.says
        );
        Ok(())
    })?;
    if agent.wait(Duration::ZERO).is_err() {
        agent.signal(Signal::TERM)?;
        agent.wait(PATIENCE)?;
    }
    same_as(&before, mesh)
}
