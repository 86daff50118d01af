//! The events of docs/host-events.md, each made to happen and, where it ends by itself, over again.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use e2e::network::{EtcView, Host};
use e2e::process::output_of;
use e2e::{PATIENCE, eventually};
use rustix::process::Signal;

use super::world::{NO_PRESSURE, World};
use crate::host_events::{OTHER, expect_told_after, set_resolver, told};

/// An event of the VM. One that ends, such as a full disk, is over when the agent has said so: happening once more
/// before, it would be nothing new.
#[derive(Debug)]
pub(super) struct Event {
    /// The codes that the log has of it.
    pub(super) name: &'static str,
    pub(super) happens: fn(&mut World<'_>) -> Result<()>,
    /// Why calls may fail, where they may.
    pub(super) loses: Option<&'static str>,
    /// True when another agent begins.
    pub(super) ends_the_agent: bool,
}

const fn event(name: &'static str, happens: fn(&mut World<'_>) -> Result<()>) -> Event {
    Event {
        name,
        happens,
        loses: None,
        ends_the_agent: false,
    }
}

impl Event {
    const fn loses(self, why: &'static str) -> Self {
        Self {
            loses: Some(why),
            ..self
        }
    }

    const fn ends_the_agent(self) -> Self {
        Self {
            ends_the_agent: true,
            ..self
        }
    }
}

const AWAY: &str = "nobody reaches the VM until callers have heard of it";

pub(super) const EVENTS: [Event; 20] = [
    event("address-changed", address_changes).loses(AWAY),
    event("address-added, address-removed", address_passes),
    event("address-missing", address_is_missing).loses(AWAY),
    event("link-down, link-up", link_flaps).loses(AWAY),
    event("route-lost, route-back", route_flaps),
    event("resolvers-changed", resolvers_change),
    event("clock-stepped", clock_steps),
    event("resumed", sleeps),
    event("container-down (it is killed)", container_dies).loses("the application is gone until it is started again"),
    event("container-down (dockerd is killed)", |world| {
        docker_restarts(world, Signal::KILL)
    }),
    event("container-down (dockerd is restarted)", |world| {
        docker_restarts(world, Signal::TERM)
    }),
    event("rules-repaired", rules_go)
        .loses("a packet that opens a connection in that moment is sent again after Envoy has given up, 1 s"),
    event("hosts-repaired", hosts_go),
    event("disk-full", disk_fills),
    event("memory-pressure", memory_is_short),
    event("descriptors-short", descriptors_are_short),
    event("certificate-expired", certificate_expires).ends_the_agent(),
    event("roots-changed", roots_change),
    event("machine-changed", machine_changes).ends_the_agent(),
    event("maintenance, preempted", google_calls).ends_the_agent(),
];

fn address_changes(world: &mut World<'_>) -> Result<()> {
    let (from, to) = match world.address == OTHER {
        true => (OTHER, Host::Vm.ipv4()),
        false => (Host::Vm.ipv4(), OTHER),
    };
    world.address = to;
    told(&world.agent, "address-changed", || {
        world.ip(&format!("addr del {from}/24 dev eth0"))?;
        world.ip(&format!("addr add {to}/24 dev eth0"))?;
        world.route()
    })
}

fn address_passes(world: &mut World<'_>) -> Result<()> {
    told(&world.agent, "address-added", || {
        world.ip("addr add 10.200.0.34/24 dev eth0")
    })?;
    told(&world.agent, "address-removed", || {
        world.ip("addr del 10.200.0.34/24 dev eth0")
    })
}

/// Of both families: any other one takes its place.
fn address_is_missing(world: &mut World<'_>) -> Result<()> {
    let (address, other) = (world.address, Host::Vm.ipv6());
    told(&world.agent, "address-missing", || {
        world.ip("addr flush dev eth0 scope global")
    })?;
    world.ip(&format!("-6 addr add {other}/64 dev eth0 nodad"))?;
    world.ip(&format!("addr add {address}/24 dev eth0"))?;
    world.route()
}

fn link_flaps(world: &mut World<'_>) -> Result<()> {
    told(&world.agent, "link-down", || world.ip("link set eth0 down"))?;
    told(&world.agent, "link-up", || world.ip("link set eth0 up"))?;
    world.route()
}

fn route_flaps(world: &mut World<'_>) -> Result<()> {
    told(&world.agent, "route-lost", || world.ip("-4 route del default"))?;
    told(&world.agent, "route-back", || world.route())
}

fn resolvers_change(world: &mut World<'_>) -> Result<()> {
    let file = world.mesh.network.etc(Host::Vm).join("resolv.conf");
    let other = match fs::read_to_string(&file)?.contains("10.200.0.2") {
        true => "10.200.0.5",
        false => "10.200.0.2",
    };
    told(&world.agent, "resolvers-changed", || set_resolver(world.mesh, other))
}

/// A month ahead, and back.
fn clock_steps(world: &mut World<'_>) -> Result<()> {
    const MONTH: i64 = 31;
    away(world, MONTH, "clock-stepped", |world| world.mesh.vm.set_clock(MONTH))
}

/// For a day; then the clock is put right, as the day has not passed anywhere else.
fn sleeps(world: &mut World<'_>) -> Result<()> {
    away(world, 1, "resumed", |world| world.mesh.vm.sleep(1))
}

/// The VM and istiod are at another day, and back at this one.
fn away(world: &mut World<'_>, days: i64, code: &str, go: fn(&mut World<'_>) -> Result<()>) -> Result<()> {
    world.set_clock_of_istiod(days)?;
    let before = world.agent.log_length()?;
    go(world)?;
    expect_told_after(&world.agent, before, code)?;
    world.horizon = world.horizon.max(days + 2);
    world.wait_until_well()?;
    come_back(world)
}

fn come_back(world: &mut World<'_>) -> Result<()> {
    world.set_clock_of_istiod(0)?;
    let before = world.agent.log_length()?;
    world.mesh.vm.set_clock(0)?;
    expect_told_after(&world.agent, before, "clock-stepped")
}

fn container_dies(world: &mut World<'_>) -> Result<()> {
    told(&world.agent, "container-down", || {
        world.mesh.vm.signal_application(Signal::KILL)
    })
}

/// dockerd restarts with `live-restore` in its daemon.json.
fn docker_restarts(world: &mut World<'_>, signal: Signal) -> Result<()> {
    let World { mesh, agent, .. } = world;
    told(agent, "container-down", || {
        mesh.vm.restart_docker(&mesh.network, signal)
    })
}

fn rules_go(world: &mut World<'_>) -> Result<()> {
    told(&world.agent, "rules-repaired", || {
        let network = &world.mesh.network;
        network.run(Host::Vm, "nft", &["flush", "ruleset"]).map(drop)
    })
}

fn hosts_go(world: &mut World<'_>) -> Result<()> {
    let hosts = world.mesh.network.hosts_file(Host::Vm, EtcView::Plain);
    told(&world.agent, "hosts-repaired", || {
        Ok(fs::write(hosts, "127.0.0.1 localhost\n")?)
    })
}

fn disk_fills(world: &mut World<'_>) -> Result<()> {
    let file = world.mesh.vm.state_folder().join("full");
    told(&world.agent, "disk-full", || {
        let filled = fs::write(&file, vec![0; 64 << 20]);
        ensure!(filled.is_err(), "the disk of the state has no end");
        Ok(())
    })?;
    told(&world.agent, "disk-full", || Ok(fs::remove_file(file)?))
}

fn memory_is_short(world: &mut World<'_>) -> Result<()> {
    let short = NO_PRESSURE.replace("avg10=0.00", "avg10=50.00");
    told(&world.agent, "memory-pressure", || {
        Ok(fs::write(&world.pressure, short)?)
    })?;
    told(&world.agent, "memory-pressure", || {
        Ok(fs::write(&world.pressure, NO_PRESSURE)?)
    })
}

/// The agent may open nothing more than it has.
fn descriptors_are_short(world: &mut World<'_>) -> Result<()> {
    let pid = world.agent.pid();
    let before = prlimit(pid, &["--nofile", "--raw", "--noheadings", "--output=SOFT"])?;
    let held = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    told(&world.agent, "descriptors-short", || {
        prlimit(pid, &[&format!("--nofile={held}:")]).map(drop)
    })?;
    told(&world.agent, "descriptors-short", || {
        prlimit(pid, &[&format!("--nofile={}:", before.trim())]).map(drop)
    })
}

/// Of the agent's own group: without CAP_SYS_RESOURCE the kernel wants all ids to be the same.
fn prlimit(pid: u32, args: &[&str]) -> Result<String> {
    let mut command = Command::new("setpriv");
    command.args(["--regid=istio-proxy", "--clear-groups", "prlimit", "--pid"]);
    command.arg(pid.to_string()).args(args);
    output_of(command)
}

/// The agent is gone until its certificate is over.
fn certificate_expires(world: &mut World<'_>) -> Result<()> {
    let before = world.agent.log_length()?;
    world.agent.kill()?;
    world.set_clock_of_istiod(world.horizon)?;
    world.mesh.vm.set_clock(world.horizon)?;
    world.horizon += 2;
    world.start_agent()?;
    expect_told_after(&world.agent, before, "certificate-expired")?;
    come_back(world)
}

/// A new root is trusted beside the old one, then signs, then is the only one.
fn roots_change(world: &mut World<'_>) -> Result<()> {
    world.state()?.pki().add_root();
    world.restart_istiod()?;
    told(&world.agent, "roots-changed", || world.write_bundle())?;
    world.renew_pod()?;
    world.state()?.pki().use_newest_root();
    world.renew_pod()?;
    let signed = world.state()?.certificates().len();
    world.state()?.pki().drop_old_roots();
    told(&world.agent, "roots-changed", || world.write_bundle())?;
    eventually("a certificate of the new root", PATIENCE, || {
        ensure!(world.state()?.certificates().len() > signed, "none yet");
        Ok(())
    })?;
    world.wait_until_well()?;
    world.restart_istiod()?;
    world.renew_pod()
}

fn machine_changes(world: &mut World<'_>) -> Result<()> {
    let before = world.agent.log_length()?;
    world.agent.kill()?;
    world.change_machine()?;
    world.start_agent()?;
    expect_told_after(&world.agent, before, "machine-changed")
}

/// The VM is taken away, and there is another one in its place.
fn google_calls(world: &mut World<'_>) -> Result<()> {
    let google = &world.google;
    told(&world.agent, "maintenance", || {
        google.set_value("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE");
        Ok(())
    })?;
    google.set_value("instance/maintenance-event", "NONE");
    told(&world.agent, "preempted", || {
        google.set_value("instance/preempted", "TRUE");
        Ok(())
    })?;
    let status = world.agent.wait(PATIENCE)?;
    ensure!(status.success(), "{status}");
    google.set_value("instance/preempted", "FALSE");
    world.start_agent()
}
