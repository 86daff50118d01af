//! Events of the VM itself: each is noticed, named in the log by its code, and met.

use std::fs;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::bundle;
use e2e::clock::DAY;
use e2e::google::Google;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::process::output_of;
use e2e::vm::{Agent, Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{note, real_only, stand_in_only};

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
        real_only(
            "real istiod: an address that the VM has left is in the mesh no more",
            move || with_mesh(Kind::Real, at_any_address(), address_is_left),
        ),
        stand_in_only("a network.address that no interface has any more is told", || {
            with_mesh(Kind::StandIn, Settings::default(), fixed_address_goes)
        }),
        stand_in_only(
            "clock, rules, hosts, resolvers and disk change: each is told, and put right",
            || with_mesh(Kind::StandIn, Settings::default(), machine_changes),
        ),
        stand_in_only(
            "dockerd is upgraded without live-restore: the container is back with it",
            || {
                let settings = Settings {
                    application: Application::Container,
                    ..Settings::default()
                };
                with_mesh(Kind::StandIn, settings, docker_restarts)
            },
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

/// As DHCP changes it: the stream by which istiod knew the former address can't end any more, and istiod finds out by itself.
fn address_is_left(mesh: &mut Mesh) -> Result<()> {
    let agent = mesh.join()?;
    mesh.expect_calls()?;
    let (former, other) = (Host::Vm.ipv4(), OTHER);
    moved(mesh, &agent, former, other)?;
    let start = Instant::now();
    // Its keepalive takes 40 s, and it keeps the place of a VM that it has lost for 10 s.
    eventually("the former address to be gone", Duration::from_secs(120), || {
        ensure!(mesh.healthy_at(former)?.is_none(), "still at {former}");
        Ok(())
    })?;
    note("the former address is gone after", &format!("{:.2?}", start.elapsed()));
    mesh.expect_calls().map(drop)
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
    expect_nothing_left_to_send(mesh, from)?;
    note(
        "the mesh has the new address after",
        &format!("{:.2?}", start.elapsed()),
    );
    mesh.expect_calls().map(drop)
}

/// Words that could not be sent from an address are not sent once the VM has it back: by then istiod knows better.
fn expect_nothing_left_to_send(mesh: &Mesh, from: Ipv4Addr) -> Result<()> {
    eventually(
        "no connection to istiod to be left of the old address",
        PATIENCE,
        || {
            let from = from.to_string();
            let left = mesh
                .network
                .run(Host::Vm, "ss", &["-Htna", "src", &from, "dport", "=", ":15012"])?;
            ensure!(left.trim().is_empty(), "{left}");
            Ok(())
        },
    )
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
    mesh.vm.set_clock(0)?;
    mesh.vm.fill_the_state_disk();
    let agent = mesh.join()?;
    expect_told(&agent, "disk-full")?;
    for days in [1, 31, -30, 0] {
        clocks_change(mesh, &agent, days, "clock-stepped", |mesh| mesh.vm.set_clock(days))?;
    }
    let streams = mesh.control_plane.stand_in()?.streams_opened();
    clocks_change(mesh, &agent, 1, "resumed", |mesh| mesh.vm.sleep(1))?;
    eventually("a stream of after the sleep", PATIENCE, || {
        ensure!(mesh.control_plane.stand_in()?.streams_opened() > streams, "not yet");
        Ok(())
    })?;
    told(&agent, "rules-repaired", || {
        mesh.network.run(Host::Vm, "nft", &["flush", "ruleset"]).map(drop)
    })?;
    told(&agent, "hosts-repaired", || {
        let hosts = mesh.network.hosts_file(Host::Vm, EtcView::Plain);
        Ok(fs::write(hosts, "127.0.0.1 localhost\n")?)
    })?;
    told(&agent, "resolvers-changed", || set_resolver(mesh, "10.200.0.5"))?;
    mesh.wait_until_healthy(true)?;
    mesh.expect_calls().map(drop)
}

/// The VM and istiod are at another day: the certificate is over by then, or not valid yet.
fn clocks_change(
    mesh: &mut Mesh,
    agent: &Agent,
    days: i64,
    code: &str,
    change: impl FnOnce(&mut Mesh) -> Result<()>,
) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    state.set_clock(days);
    // Of that day, too.
    let mut claims = bundle::claims();
    claims.exp += DAY * days.unsigned_abs();
    bundle::write(&mesh.vm.bundle(), state, &claims, true)?;
    mesh.kill_istiod()?;
    mesh.start_istiod()?;
    let before = agent.log_length()?;
    let start = Instant::now();
    told(agent, code, || change(mesh))?;
    // The agent's word and not istiod's: a certificate that the clock leaves behind on its way is refused.
    eventually("another certificate", PATIENCE, || {
        ensure!(agent.logged_after(before)?.contains("got a certificate"), "not yet");
        Ok(())
    })?;
    note(
        &format!("another certificate after {code}"),
        &format!("{:.2?}", start.elapsed()),
    );
    Ok(())
}

/// Gives the VM another resolver, and asks there: that is when the agent looks who it is.
pub(crate) fn set_resolver(mesh: &Mesh, address: &str) -> Result<()> {
    let file = mesh.network.etc(Host::Vm).join("resolv.conf");
    fs::write(file, format!("nameserver {address}\noptions timeout:1 attempts:1\n"))?;
    eventually("the rules for the new resolver", PATIENCE, || {
        let mut command = mesh.network.command(Host::Vm, EtcView::Plain, "getent");
        command.args(["ahostsv4", "cartservice.onlineboutique.svc.cluster.local"]);
        output_of(command).map(drop)
    })
}

/// To the agent an upgrade is the end of one dockerd and the start of another.
fn docker_restarts(mesh: &mut Mesh) -> Result<()> {
    let agent = mesh.join()?;
    mesh.expect_calls()?;
    told(&agent, "container-down", || {
        mesh.vm.restart_docker(&mesh.network, Signal::TERM)
    })?;
    let start = Instant::now();
    mesh.wait_until_healthy(true)?;
    mesh.expect_calls()?;
    note("calls after dockerd answers", &format!("{:.2?}", start.elapsed()));
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

/// Does what is to be told, and waits until the log has a line of this code.
pub(crate) fn told(agent: &Agent, code: &str, deed: impl FnOnce() -> Result<()>) -> Result<()> {
    let before = agent.log_length()?;
    let start = Instant::now();
    deed()?;
    expect_told_after(agent, before, code)?;
    note(code, &format!("told after {:.2?}", start.elapsed()));
    Ok(())
}

fn expect_told(agent: &Agent, code: &str) -> Result<()> {
    expect_told_after(agent, 0, code)
}

/// Waits until the log has a line of this code after so many bytes.
pub(crate) fn expect_told_after(agent: &Agent, length: u64, code: &str) -> Result<()> {
    eventually(format!("{code} to be told"), PATIENCE, || {
        let is_told = agent.logged_after(length)?.contains(&format!("code=\"{code}\""));
        ensure!(is_told, "not yet");
        Ok(())
    })
}

/// `ip` on the VM.
pub(crate) fn ip(mesh: &Mesh, args: &[&str]) -> Result<()> {
    mesh.network.run(Host::Vm, "ip", args).map(drop)
}
