//! Taking over from Istio's own agent, as the package istio-sidecar leaves it on a VM, and going back.

mod stock;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::calls::Calls;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::vm::{Application, Settings};
use libtest_mimic::Trial;

use crate::both;
use crate::package::steps::{AGENT, CONFIG, expect_calls, expect_same, install, start_application, traces};

/// Command whose output a failed case shows of the VM.
const JOURNAL: &str = "journalctl --no-pager --output=short-precise | grep -v GetProduct | tail --lines=120; \
                       tail --lines=40 /var/log/istio/istio.log";

pub(crate) fn trials() -> Vec<Trial> {
    [
        on_a_vm(
            "the switch from Istio's own agent leaves nothing of it, and goes back",
            there_and_back,
        ),
        on_a_vm("a switch that fails is undone", failing),
        on_a_vm("a switch that is killed halfway is undone, or made again", killed),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn on_a_vm(name: &str, case: fn(Kind, &mut Mesh, &mut Booted) -> Result<()>) -> [Trial; 2] {
    both(&format!("import: {name}"), move |kind| {
        let settings = Settings {
            application: Application::None,
            ..Settings::default()
        };
        with_mesh(kind, settings, |mesh| {
            let mut vm = Booted::start(&mesh.network, "bookworm")?;
            case(kind, mesh, &mut vm).map_err(|error| match vm.run(&["sh", "-c", JOURNAL]) {
                Ok(journal) => error.context(journal),
                Err(_) => error,
            })
        })
    })
}

/// Both packages and the application, and Istio's own agent in charge; what there was before it started.
fn stock_in_charge(kind: Kind, mesh: &Mesh, vm: &Booted) -> Result<BTreeSet<String>> {
    start_application(vm)?;
    // Who asks for a name of the mesh is redirected to the agent, wherever in the namespace it runs.
    fs::write(vm.path("/etc/resolv.conf"), "nameserver 10.200.0.2\n")?;
    stock::install(kind, mesh, vm)?;
    stock::configure(kind, mesh, vm)?;
    install(vm)?;
    let before = state(vm)?;
    stock::start(mesh, vm)?;
    served_by_stock(kind, mesh, vm)?;
    Ok(before)
}

fn there_and_back(kind: Kind, mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    let before = stock_in_charge(kind, mesh, vm)?;
    let hosts = fs::read_to_string(vm.path("/etc/hosts"))?;
    let user = vm.run(&["id", "istio-proxy"])?;
    ensure!(
        !user.contains("uid=1337"),
        "the case wants another number than ours: {user}"
    );
    told_beside_it(vm)?;
    imported(vm)?;

    // Nobody answers where the agent before is one in name only.
    let calling = mesh
        .calls_to_the_vm()
        .until_stopped(200)
        .start(&mesh.network, Host::Pod)?;
    calling.wait_for(2.0)?;
    let switched = vm.run(&["istio-vm-agent", "import", "--switch"])?;
    let calls = calling.stop()?;
    tell(kind, &calls);
    ensure!(switched.contains("istio-token"), "{switched}");
    expect_calls(mesh)?;
    crate::calls::both_ways(mesh)?;
    nothing_runs_of_it(vm)?;
    if kind == Kind::Real {
        let gap = longest_gap(&calls);
        ensure!(gap < 10.0, "no call was answered for {gap} s");
    }

    vm.run(&["istio-vm-agent", "import", "--undo"])?;
    served_by_stock(kind, mesh, vm)?;
    ensure!(
        fs::read_to_string(vm.path("/etc/hosts"))? == hosts,
        "/etc/hosts is another"
    );
    ensure!(
        vm.run(&["id", "istio-proxy"])? == user,
        "istio-proxy is not what it was"
    );
    let again = vm.command(&["istio-vm-agent", "import", "--undo"])?.output()?;
    ensure!(!again.status.success(), "it was undone twice");

    vm.run(&["istio-vm-agent", "import", "--switch"])?;
    expect_calls(mesh)?;
    vm.run(&["systemctl", "stop", AGENT])?;
    expect_same(&without_users(before), &without_users(state(vm)?))
}

/// The VM is as it was, with Istio's own agent in charge.
fn failing(kind: Kind, mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    stock_in_charge(kind, mesh, vm)?;
    vm.run(&["istio-vm-agent", "import"])?;
    let broken = vm.path("/usr/local/bin/broken");
    // Like Envoy until it is to serve.
    fs::write(
        &broken,
        "#!/bin/sh\n[ \"$1\" != --version ] || exec /usr/local/bin/envoy --version\nexit 7\n",
    )?;
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755))?;
    let config = fs::read_to_string(vm.path(CONFIG))?;
    fs::write(
        vm.path(CONFIG),
        config + "\n[envoy]\nbinary = \"/usr/local/bin/broken\"\n",
    )?;
    let before = without_certificates(state(vm)?);

    let failed = vm
        .command(&["istio-vm-agent", "import", "--switch", "--within", "8s"])?
        .output()?;
    let told = String::from_utf8_lossy(&failed.stderr);
    ensure!(
        failed.status.code() == Some(1)
            && told.contains("is undone: Istio's own agent is back")
            && told.contains("Envoy"),
        "{:?}: {told}",
        failed.status
    );
    served_by_stock(kind, mesh, vm)?;
    ensure!(vm.property(AGENT, "ActiveState")? == "inactive", "{AGENT} runs on");
    expect_same(&before, &without_certificates(state(vm)?))
}

/// In the middle of the number's change, and before our agent's start.
fn killed(kind: Kind, mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    stock_in_charge(kind, mesh, vm)?;
    vm.run(&["istio-vm-agent", "import"])?;
    let before = without_certificates(state(vm)?);

    switch_killed_at(vm, "usermod", "")?;
    vm.run(&["istio-vm-agent", "import", "--undo"])?;
    served_by_stock(kind, mesh, vm)?;
    expect_same(&before, &without_certificates(state(vm)?))?;

    switch_killed_at(vm, "systemctl", "start istio-vm-agent.service")?;
    let checked = vm.command(&["istio-vm-agent", "check"])?.output()?;
    let text = String::from_utf8_lossy(&checked.stdout);
    ensure!(text.contains("was interrupted"), "check says {text}");
    let again = vm.run(&["istio-vm-agent", "import", "--switch"])?;
    ensure!(
        again.contains("was interrupted") && again.contains("istio-token"),
        "{again}"
    );
    expect_calls(mesh)?;
    nothing_runs_of_it(vm)?;
    let checked = vm.run(&["istio-vm-agent", "check"])?;
    ensure!(!checked.contains("was interrupted"), "check says {checked}");
    Ok(())
}

/// A switch that is killed when it runs this program with these arguments among its own, by what is found before it.
fn switch_killed_at(vm: &Booted, program: &str, arguments: &str) -> Result<()> {
    let place = vm.path("/usr/local/sbin").join(program);
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *'{arguments}'*) kill -KILL $PPID ;; *) exec /usr/bin/{program} \"$@\" ;; esac\n"
    );
    fs::write(&place, script)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o755))?;
    let switched = vm.command(&["istio-vm-agent", "import", "--switch"])?.output()?;
    fs::remove_file(&place)?;
    ensure!(switched.status.code().is_none(), "{switched:?}");
    Ok(())
}

/// Waits until Istio's own agent is active and, where it is the real one, serves.
fn served_by_stock(kind: Kind, mesh: &Mesh, vm: &Booted) -> Result<()> {
    e2e::eventually("Istio's own agent", e2e::PATIENCE, || {
        vm.run(&["pgrep", "--full", "envoy-rev.json"])
    })?;
    let state = (
        vm.property(stock::UNIT, "ActiveState")?,
        vm.property(stock::UNIT, "UnitFileState")?,
    );
    ensure!(state == ("active".to_owned(), "enabled".to_owned()), "{state:?}");
    match kind {
        Kind::Real => expect_calls(mesh),
        Kind::StandIn => Ok(()),
    }
}

/// With and without a configuration of ours.
fn told_beside_it(vm: &Booted) -> Result<()> {
    let checked = vm.command(&["istio-vm-agent", "check"])?.output()?;
    let text = String::from_utf8_lossy(&checked.stdout);
    ensure!(
        !checked.status.success() && text.contains("FAILED") && text.contains("import --switch"),
        "check says {text}"
    );
    let status = vm.command(&["systemctl", "status", AGENT])?.output()?;
    let text = String::from_utf8_lossy(&status.stdout);
    ensure!(text.contains("istio-vm-agent import"), "systemctl status says {text}");
    Ok(())
}

fn imported(vm: &Booted) -> Result<()> {
    let tried = vm.run(&["istio-vm-agent", "import", "--dry-run"])?;
    ensure!(tried.contains("+ISTIO_INBOUND_PORTS='3550'"), "{tried}");
    ensure!(!vm.path("/etc/istio-vm-agent/bundle").exists(), "a dry run wrote");
    vm.run(&["istio-vm-agent", "import"])?;
    let refused = vm.command(&["istio-vm-agent", "run"])?.output()?;
    let text = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        refused.status.code() == Some(78) && text.contains("is running"),
        "two agents at once: {:?}: {text}",
        refused.status
    );
    Ok(())
}

fn nothing_runs_of_it(vm: &Booted) -> Result<()> {
    let rules = vm.run(&["sh", "-c", NETFILTER])?;
    // Our own tables except that interface, too.
    let tables = rules.split("\ntable ");
    let theirs: Vec<&str> = tables
        .filter(|table| !table.starts_with("inet istio_vm_agent"))
        .collect();
    for left in ["ISTIO_", "not-istio-nic", "0x539", "table 133"] {
        ensure!(
            !theirs.iter().any(|table| table.contains(left)),
            "{left} is left:\n{rules}"
        );
    }
    let secrets = vm.run(&["find", "/etc/certs", "/var/run/secrets/", "!", "-type", "d"])?;
    ensure!(secrets.is_empty(), "left: {secrets}");
    let hosts = fs::read_to_string(vm.path("/etc/hosts"))?;
    let (outside, block) = hosts.split_once("# BEGIN").context("there is no block of ours")?;
    let (_, below) = block.split_once("# END").context("the block has no end")?;
    ensure!(!outside.contains("istiod") && !below.contains("istiod"), "{hosts}");
    let state = (
        vm.property(stock::UNIT, "ActiveState")?,
        vm.property(stock::UNIT, "UnitFileState")?,
    );
    ensure!(state == ("inactive".to_owned(), "disabled".to_owned()), "{state:?}");
    let drop_ins = vm.property(stock::UNIT, "DropInPaths")?;
    ensure!(drop_ins.is_empty(), "left: {drop_ins}");
    let running = vm.run(&["ps", "-eo", "args"])?;
    ensure!(
        !running.contains("pilot-agent") && !running.contains("envoy-rev.json"),
        "{running}"
    );
    let ids = vm.run(&["id", "istio-proxy"])?;
    ensure!(ids.contains("uid=1337") && ids.contains("gid=1337"), "{ids}");
    Ok(())
}

#[expect(clippy::print_stderr, reason = "figures of the case, for whoever reads its output")]
fn tell(kind: Kind, calls: &Calls) {
    let gap = longest_gap(calls);
    eprintln!("{kind:?}: across the switch {calls}, none for {gap:.2} s");
}

/// Seconds between two answers.
fn longest_gap(calls: &Calls) -> f64 {
    let answered: Vec<f64> = calls.answered().map(|call| call.at).collect();
    answered.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max)
}

/// iptables-legacy, which Istio's own agent prefers, is asked only where it has tables: asking makes them.
const NETFILTER: &str = "nft -s list ruleset; ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; \
                         ip -6 address show dev lo; for v in ip ip6; do [ ! -s /proc/net/${v}_tables_names ] || \
                         ${v}tables-legacy-save | grep -e '^-' -e ISTIO; done; true";

/// Files, rules, routes, units, ours aside.
fn state(vm: &Booted) -> Result<BTreeSet<String>> {
    let script = format!(
        "({NETFILTER}) | grep -v valid_lft; find /run/secrets ! -type d; \
         systemctl list-unit-files --no-legend 'istio*' | awk '{{ print $1, $2 }}'"
    );
    let more = vm.run(&["sh", "-c", &script])?;
    let mut state = traces(vm)?;
    state.extend(more.lines().map(str::to_owned));
    state.retain(|line| !line.contains("istio-vm-agent") && !is_frame(line));
    Ok(state)
}

/// True for a line that is no rule, but a table or chain of the kernel's own, which iptables makes when it looks.
fn is_frame(line: &str) -> bool {
    const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["}" | "type", ..] | ["table", "ip" | "ip6", ..] => true,
        ["chain", name, "{"] => CHAINS.contains(name),
        _ => false,
    }
}

/// Without the files that have the user's number.
fn without_users(state: BTreeSet<String>) -> BTreeSet<String> {
    const FILES: [&str; 4] = ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow"];
    let is_other = |line: &String| !FILES.iter().any(|file| line.contains(file));
    state.into_iter().filter(is_other).collect()
}

/// Without the texts of what Istio's own agent makes anew at each start.
fn without_certificates(state: BTreeSet<String>) -> BTreeSet<String> {
    let is_text = |line: &String| line.contains("  /etc/certs/");
    state.into_iter().filter(|line| !is_text(line)).collect()
}
