//! What happens to the VM itself: each event is noticed, named in the log by its code, and met.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use e2e::bundle;
use e2e::google::Google;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::process::output_of;
use e2e::vm::{Agent, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::{note, stand_in_only};

/// In seconds.
const DAY: u64 = 86_400;
/// An address of the VM's network that nobody has.
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 33);

pub(crate) fn trials() -> Vec<Trial> {
    let at_any_address = || Settings {
        fixed_address: false,
        ..Settings::default()
    };
    vec![
        stand_in_only(
            "the VM's network changes: the mesh has the right address, and each change is told",
            move || with_mesh(Kind::StandIn, at_any_address(), network_changes),
        ),
        stand_in_only("a network.address that no interface has any more is told", || {
            with_mesh(Kind::StandIn, Settings::default(), fixed_address_goes)
        }),
        stand_in_only(
            "clock, rules, hosts, resolvers and disk change: each is told, and put right",
            || with_mesh(Kind::StandIn, Settings::default(), machine_changes),
        ),
        stand_in_only(
            "Google preempts the VM at 200 calls a second, with a second workload: none fails, and it stays away",
            || with_mesh(Kind::StandIn, Settings::default(), preempted),
        ),
    ]
}

fn network_changes(mesh: &mut Mesh) -> Result<()> {
    let agent = mesh.join()?;
    let (first, other) = (Host::Vm.ipv4(), OTHER);
    told(&agent, "address-added", || {
        ip(mesh, &["addr", "add", &format!("{other}/24"), "dev", "eth0"])
    })?;
    told(&agent, "address-removed", || {
        ip(mesh, &["addr", "del", &format!("{other}/24"), "dev", "eth0"])
    })?;
    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    told(&agent, "route-lost", || ip(mesh, &["-4", "route", "del", "default"]))?;
    told(&agent, "route-back", || {
        ip(mesh, &["-4", "route", "add", "default", "via", "10.200.0.1"])
    })?;
    mesh.expect_calls()?;
    ensure!(mesh.vm.envoy_pid(&mesh.network)? == envoy, "another Envoy for nothing");

    told(&agent, "link-down", || ip(mesh, &["link", "set", "eth0", "down"]))?;
    told(&agent, "link-up", || ip(mesh, &["link", "set", "eth0", "up"]))?;
    ip(mesh, &["-4", "route", "replace", "default", "via", "10.200.0.1"])?;
    let start = Instant::now();
    mesh.wait_until_healthy(true)?;
    mesh.expect_calls()?;
    note("calls after the link is up", &format!("{:.2?}", start.elapsed()));
    ensure!(mesh.vm.envoy_pid(&mesh.network)? == envoy, "another Envoy for nothing");

    moved(mesh, &agent, first, other)?;
    moved(mesh, &agent, other, first)
}

/// The VM is given another address, and has no other one then.
fn moved(mesh: &Mesh, agent: &Agent, from: Ipv4Addr, to: Ipv4Addr) -> Result<()> {
    ip(mesh, &["addr", "del", &format!("{from}/24"), "dev", "eth0"])?;
    let start = Instant::now();
    told(agent, "address-changed", || {
        ip(mesh, &["addr", "add", &format!("{to}/24"), "dev", "eth0"])?;
        ip(mesh, &["-4", "route", "replace", "default", "via", "10.200.0.1"])
    })?;
    eventually("the mesh to have the new address alone", PATIENCE, || {
        ensure!(mesh.healthy_at(to)? == Some(true), "not at {to} yet");
        ensure!(mesh.healthy_at(from)? != Some(true), "still at {from}");
        Ok(())
    })?;
    note(
        "the mesh has the new address after",
        &format!("{:.2?}", start.elapsed()),
    );
    mesh.expect_calls().map(drop)
}

fn fixed_address_goes(mesh: &mut Mesh) -> Result<()> {
    let agent = mesh.join()?;
    told(&agent, "address-missing", || {
        ip(
            mesh,
            &["addr", "del", &format!("{}/24", Host::Vm.ipv4()), "dev", "eth0"],
        )
    })?;
    ensure!(agent.output().contains("network.address"), "the key is not named");
    ensure!(!agent.output().contains("address-changed"), "the address is fixed");
    Ok(())
}

fn machine_changes(mesh: &mut Mesh) -> Result<()> {
    mesh.vm.make_clock_settable()?;
    mesh.vm.fill_the_state_disk();
    let agent = mesh.join()?;
    expect_told(&agent, "disk-full")?;
    for days in [1, 31, -30, 0] {
        clocks_step(mesh, &agent, days)?;
    }
    told(&agent, "rules-repaired", || {
        mesh.network.run(Host::Vm, "nft", &["flush", "ruleset"]).map(drop)
    })?;
    told(&agent, "hosts-repaired", || {
        let hosts = mesh.network.hosts_file(Host::Vm, EtcView::Plain);
        Ok(fs::write(hosts, "127.0.0.1 localhost\n")?)
    })?;
    told(&agent, "resolvers-changed", || {
        let file = mesh.network.etc(Host::Vm).join("resolv.conf");
        fs::write(file, "nameserver 10.200.0.5\noptions timeout:1 attempts:1\n")?;
        eventually("the rules for the new resolver", PATIENCE, || {
            let mut command = mesh.network.command(Host::Vm, EtcView::Plain, "getent");
            command.args(["ahostsv4", "cartservice.onlineboutique.svc.cluster.local"]);
            output_of(command).map(drop)
        })
    })?;
    mesh.wait_until_healthy(true)?;
    mesh.expect_calls().map(drop)
}

/// The VM and istiod are at another day: the certificate is over by then, or not valid yet.
fn clocks_step(mesh: &mut Mesh, agent: &Agent, days: i64) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    state.set_clock(days);
    // Of that day, too.
    let mut claims = bundle::claims();
    claims.exp += DAY * days.unsigned_abs();
    bundle::write(&mesh.vm.bundle(), state, &claims, true)?;
    mesh.kill_istiod()?;
    mesh.start_istiod()?;
    let before = mesh.control_plane.stand_in()?.certificates().len();
    let start = Instant::now();
    told(agent, "clock-stepped", || mesh.vm.set_the_running_clock(days))?;
    eventually("another certificate", PATIENCE, || {
        let now = mesh.control_plane.stand_in()?.certificates().len();
        ensure!(now > before, "not yet");
        Ok(())
    })?;
    let took = format!("{:.2?}", start.elapsed());
    note("another certificate after a step of the clock", &took);
    Ok(())
}

fn preempted(mesh: &mut Mesh) -> Result<()> {
    let google = Google::start(&mesh.network, EtcView::Plain, "token")?;
    mesh.vm.put_on_google();
    let _second = mesh.start_second_workload()?;
    let mut agent = mesh.join()?;
    let calling = mesh.start_calls(200)?;
    calling.wait_for(2.0)?;
    told(&agent, "maintenance", || {
        google.set_value("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE");
        Ok(())
    })?;
    let start = Instant::now();
    google.set_value("instance/preempted", "TRUE");
    let status = agent.wait(PATIENCE)?;
    note("out of the mesh after the notice", &format!("{:.2?}", start.elapsed()));
    ensure!(status.success(), "{status}");
    expect_told(&agent, "preempted")?;
    calling.wait_for(calling.so_far().last() + 2.0)?;
    calling.stop()?.expect_all_answered()
}

/// Waits until the log has one more line of this code than before the deed.
fn told(agent: &Agent, code: &str, deed: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = lines(agent, code);
    let start = Instant::now();
    deed()?;
    eventually(format!("{code} to be told"), PATIENCE, || {
        ensure!(lines(agent, code) > before, "not yet");
        Ok(())
    })?;
    note(code, &format!("told after {:.2?}", start.elapsed()));
    Ok(())
}

fn expect_told(agent: &Agent, code: &str) -> Result<()> {
    eventually(format!("{code} to be told"), PATIENCE, || {
        let line = (lines(agent, code) > 0).then_some(());
        line.context("not yet")
    })
}

fn lines(agent: &Agent, code: &str) -> usize {
    agent.output().matches(&format!("code=\"{code}\"")).count()
}

/// `ip` on the VM.
pub(crate) fn ip(mesh: &Mesh, args: &[&str]) -> Result<()> {
    mesh.network.run(Host::Vm, "ip", args).map(drop)
}
