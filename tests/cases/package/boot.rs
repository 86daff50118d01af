//! A boot before there is an agent: the application is closed, and the mesh's ports are nobody's to take.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;

use super::steps::*;

const GUARD: &str = "istio-vm-agent-guard.service";
const PORTS: &str = "istio-vm-agent-ports.service";
/// Where no unit's condition looks.
const ELSEWHERE: &str = "/srv/agent.toml";

pub(super) fn is_closed(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    join(mesh, vm)?;
    e2e::eventually("the ports to be held from the first join on", e2e::PATIENCE, || {
        ensure!(vm.property(PORTS, "ActiveState")? == "active", "not yet");
        Ok(())
    })?;
    fs::rename(vm.path(CONFIG), vm.path(ELSEWHERE))?;
    let unit = "[Unit]\nConditionPathExists=!/srv/hold\n[Service]\nExecStart=\nExecStart=/usr/bin/istio-vm-agent run --config /srv/agent.toml \
                --envoy-unit istio-vm-agent-envoy@.service --unit %n\n";
    let folder = vm.path("/etc/systemd/system/istio-vm-agent.service.d");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("elsewhere.conf"), unit)?;
    vm.run(&["systemctl", "daemon-reload"])?;
    vm.run(&["systemctl", "restart", AGENT])?;
    expect_calls(mesh)?;

    fs::write(vm.path("/srv/hold"), "")?;
    vm.shut_down()?;
    vm.boot()?;
    ensure!(vm.property(AGENT, "ActiveState")? == "inactive", "the agent runs");
    expect_closed(vm)?;
    let when = |unit| anyhow::Ok(vm.property(unit, "ActiveEnterTimestampMonotonic")?.parse::<u64>()?);
    let (guard, network) = (when(GUARD)?, when("network-pre.target")?);
    ensure!(
        guard <= network,
        "the guard is up at {guard} µs, the network may be at {network} µs"
    );
    // Debian's own rules begin with a flush.
    vm.run(&["systemctl", "start", "nftables.service"])?;
    for verb in ["reload", "restart"] {
        vm.run(&["systemctl", verb, "nftables.service"])?;
        e2e::eventually(format!("the guard after a {verb}"), e2e::PATIENCE, || expect_closed(vm))?;
    }
    for port in [15001, 15006, 15007, 15020, 15021, 15090] {
        expect_taken(vm, &["--listen"], port)?;
    }
    for kind in [&["--listen"][..], &["--datagram", "--listen"]] {
        expect_taken(vm, kind, 15053)?;
    }

    fs::remove_file(vm.path("/srv/hold"))?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;
    vm.run(&["systemctl", "stop", AGENT])?;
    ensure!(
        vm.property(PORTS, "ActiveState")? == "inactive",
        "the ports are held after a stop"
    );
    Ok(())
}

fn expect_closed(vm: &Booted) -> Result<()> {
    let rules = vm.run(&["nft", "list", "ruleset"])?;
    ensure!(
        rules.contains("tcp dport 3550") && rules.contains("drop"),
        "nothing is closed: {rules}"
    );
    Ok(())
}

/// systemd's own tool listens before it runs anything.
fn expect_taken(vm: &Booted, kind: &[&str], port: u16) -> Result<()> {
    // Whoever has one address keeps others from having all.
    let address = format!("127.0.0.{}:{port}", if kind.contains(&"--datagram") { 1 } else { 2 });
    let mut command = vec![
        "timeout",
        "2",
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    command.push("systemd-socket-activate");
    command.extend(kind);
    command.extend([address.as_str(), "/bin/true"]);
    let tried = vm.command(&command)?.output()?;
    let said = String::from_utf8_lossy(&tried.stderr);
    ensure!(
        said.contains("Address already in use"),
        "{address} can be taken: {said}"
    );
    Ok(())
}
