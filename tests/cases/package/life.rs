//! From the installation to the purge, by way of restarts, kills, stops and reboots.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::google::Google;
use e2e::mesh::Mesh;
use e2e::network::EtcView;

use super::steps::*;

/// Answers to the VM, line by line.
pub(super) const ANSWERS: &str = "/root/answers";
/// Served by a pod, and in no file of the VM's.
const MESH_NAME: &str = "cartservice.onlineboutique.svc.cluster.local";

/// For DNS, and for the VM's place in the mesh.
pub(super) const STANDBYS: [&str; 2] = ["istio-vm-agent-dns.service", "istio-vm-agent-xds.service"];

pub(super) fn first_contact_and_purge(_mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    let before = traces(vm)?;
    install(vm)?;

    let status = vm.command(&["systemctl", "status", AGENT])?.output()?;
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    ensure!(
        status.contains("There is no configuration yet") && status.contains("examples/config.toml"),
        "systemctl status does not say what to do next:\n{status}"
    );
    let failed = vm.run(&["systemctl", "list-units", "--failed", "--no-legend"])?;
    ensure!(
        !failed.contains("istio"),
        "a fresh installation counts as failed: {failed}"
    );
    let user = vm.run(&["getent", "passwd", "istio-proxy"])?;
    ensure!(user.contains(":1337:1337:"), "{user}");

    let migrates = vm.run(&["cat", "/proc/sys/net/ipv4/tcp_migrate_req"])?;
    ensure!(migrates == "1\n", "a connection is reset when Envoy is taken over from");

    let verify = "systemd-analyze verify /usr/lib/systemd/system/istio-vm-agent*.service 2>&1";
    let said = vm.run(&["sh", "-c", verify])?;
    ensure!(said.trim().is_empty(), "systemd-analyze verify: {said}");

    vm.run(&["apt-get", "purge", "--yes", "istio-vm-agent"])?;
    expect_same(&before, &traces(vm)?)
}

pub(super) fn restarts(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    const KILLS: u32 = 10;
    let google = Google::start(&mesh.network, EtcView::Plain, "token")?;
    install(vm)?;
    drop_in(vm, "[Service]\nEnvironment=GCE_METADATA_HOST=169.254.169.254\n")?;
    join(mesh, vm)?;
    let envoy = vm.property(ENVOY, "MainPID")?;
    // What they hold is in their memory, and is needed when agents come and go.
    let standbys = || -> Result<Vec<String>> { STANDBYS.iter().map(|unit| vm.property(unit, "MainPID")).collect() };
    let held = e2e::eventually("both standbys", e2e::PATIENCE, || {
        let pids = standbys()?;
        ensure!(pids.iter().all(|pid| pid != "0"), "{pids:?}");
        Ok(pids)
    })?;
    let calling = mesh.start_calls(200)?;
    resolve_on(vm)?;
    vm.run(&["systemctl", "restart", AGENT])?;
    for _ in 0..KILLS {
        let before = vm.property(AGENT, "MainPID")?;
        vm.kill(AGENT)?;
        expect_another(vm, AGENT, &before)?;
    }
    expect_all_resolved(vm)?;
    calling.stop()?.expect_all_answered()?;
    ensure!(vm.property(ENVOY, "MainPID")? == envoy, "it is not the Envoy of before");
    let now = standbys()?;
    ensure!(now == held, "the standbys were {held:?} and are {now:?}");
    takes_over(mesh, vm)?;
    expect_logs(vm)?;
    // istiod's access log is of the test's own format, of which explain knows nothing.
    if mesh.control_plane.stand_in().is_ok() {
        last_error(vm)?;
    }
    is_preempted(vm, &google)
}

/// An agent that left for good is not restarted, and takes along what goes with it.
fn is_preempted(vm: &Booted, google: &Google) -> Result<()> {
    google.set_value("instance/preempted", "TRUE");
    e2e::eventually("the agent's end", e2e::PATIENCE, || {
        let state = vm.property(AGENT, "ActiveState")?;
        // One that is to be started again is activating.
        ensure!(state == "inactive", "it is {state}");
        Ok(())
    })?;
    let [status, result] = ["ExecMainStatus", "Result"].map(|name| vm.property(AGENT, name));
    let (status, result) = (status?, result?);
    ensure!(
        status == "75" && result == "success",
        "it ended with {status}: {result}"
    );
    for unit in STANDBYS.into_iter().chain([ENVOY]) {
        e2e::eventually(format!("the end of {unit}"), e2e::PATIENCE, || {
            let state = vm.property(unit, "ActiveState")?;
            ensure!(state == "inactive", "it is {state}");
            Ok(())
        })?;
    }
    Ok(())
}

/// An agent that hangs is replaced before istiod takes the VM out of the mesh, here sooner than the unit has it.
pub(super) fn hangs(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    /// Time for which istiod keeps a VM without a stream, and a bit.
    const GRACE: f64 = 11.0;
    install(vm)?;
    drop_in(vm, "[Service]\nWatchdogSec=5s\n")?;
    join(mesh, vm)?;
    let calling = mesh.start_calls(100)?;
    let hung = vm.property(AGENT, "MainPID")?;
    vm.run(&["systemctl", "kill", "--kill-who=main", "--signal=STOP", AGENT])?;
    expect_another(vm, AGENT, &hung)?;
    calling.wait_for(calling.so_far().last() + GRACE)?;
    calling.stop()?.expect_all_answered()
}

/// Adds to the agent's unit; returns the folder.
fn drop_in(vm: &Booted, text: &str) -> Result<PathBuf> {
    let folder = vm.path("/etc/systemd/system/istio-vm-agent.service.d");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("case.conf"), text)?;
    vm.run(&["systemctl", "daemon-reload"])?;
    Ok(folder)
}

/// Another Envoy is the other instance of its unit, and the next one the first again.
fn takes_over(mesh: &Mesh, vm: &Booted) -> Result<()> {
    let calling = mesh.start_calls(200)?;
    for (threads, from, to) in [(1, ENVOY, OTHER_ENVOY), (2, OTHER_ENVOY, ENVOY)] {
        let config = fs::read_to_string(vm.path(CONFIG))?;
        let (rest, _) = config.split_once("[envoy]").unwrap_or((&config, ""));
        fs::write(vm.path(CONFIG), format!("{rest}[envoy]\nconcurrency = {threads}\n"))?;
        vm.run(&["systemctl", "reload", AGENT])?;
        e2e::eventually("the other Envoy alone", e2e::PATIENCE, || {
            ensure!(vm.property(to, "ActiveState")? == "active", "{to} is not there yet");
            ensure!(vm.property(from, "ActiveState")? == "inactive", "{from} is still there");
            Ok(())
        })?;
    }
    calling.stop()?.expect_all_answered()
}

/// Has the VM ask for a name of the mesh, again and again.
pub(super) fn resolve_on(vm: &Booted) -> Result<()> {
    // Nobody is there: what the agent does not answer is not answered.
    fs::write(
        vm.path("/etc/resolv.conf"),
        "nameserver 10.200.0.2\noptions attempts:1\n",
    )?;
    e2e::eventually("the rules for the new resolver", e2e::PATIENCE, || {
        vm.run(&["getent", "ahostsv4", MESH_NAME])
    })?;
    let script = format!(
        "while :; do getent ahostsv4 {MESH_NAME} || echo failed at $(date +%T.%N); sleep 0.05; done >{ANSWERS}"
    );
    vm.run(&["systemd-run", "--quiet", "--unit=asking", "sh", "-c", &script])?;
    // systemd-run comes back once the unit is started, and the shell makes the file after that.
    e2e::eventually("the first answer", e2e::PATIENCE, || {
        let answers = fs::read_to_string(vm.path(ANSWERS))?;
        ensure!(answers.contains("STREAM"), "{answers}");
        Ok(())
    })
}

pub(super) fn expect_all_resolved(vm: &Booted) -> Result<()> {
    vm.run(&["systemctl", "stop", "asking.service"])?;
    let answers = fs::read_to_string(vm.path(ANSWERS))?;
    let (failed, all) = (answers.matches("failed").count(), answers.matches("STREAM").count());
    ensure!(all > 20 && failed == 0, "{failed} queries of {} failed", failed + all);
    Ok(())
}

/// Fails unless the agent's log, Envoy's and the calls can be told apart by a field.
fn expect_logs(vm: &Booted) -> Result<()> {
    for (field, part) in [
        ("TARGET=istio_vm_agent::app", "joined the mesh"),
        ("TARGET=envoy", "gRPC config stream"),
        ("TARGET=envoy::access", "/hipstershop.ProductCatalogService/GetProduct"),
    ] {
        let lines = vm.run(&["journalctl", "--no-pager", "--output=cat", "--unit", AGENT, field])?;
        ensure!(
            lines.contains(part),
            "{part:?} is not in the journal under {field}:\n{lines}"
        );
        let agent_s_own = field != "TARGET=istio_vm_agent::app" && lines.contains("joined the mesh");
        ensure!(!agent_s_own, "{field} does not tell the logs apart");
    }
    Ok(())
}

/// The last failure in Envoy's access log is that of a call whose host nobody knows.
fn last_error(vm: &Booted) -> Result<()> {
    let request = "GET /none HTTP/1.1\\r\\nHost: none.invalid\\r\\nConnection: close\\r\\n\\r\\n";
    let call = format!("exec 3<>/dev/tcp/{MESH_NAME}/7070; printf '{request}' >&3; cat <&3");
    vm.run(&["bash", "-c", &call])?;
    e2e::eventually("the failure in the access log", e2e::PATIENCE, || {
        let explained = vm.command(&["istio-vm-agent", "explain", "--last-error"])?.output()?;
        let told = String::from_utf8_lossy(&explained.stdout);
        ensure!(told.contains("GET /none"), "{explained:?}");
        Ok(())
    })
}

pub(super) fn stop_and_reboot(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    const REBOOTS: u32 = 2;
    install(vm)?;
    configure(mesh, vm)?;
    start_application(vm)?;
    let before = traces(vm)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;
    vm.run(&["systemctl", "stop", AGENT])?;
    ensure!(vm.property(ENVOY, "ActiveState")? == "inactive", "Envoy runs on");
    let mut after = traces(vm)?;
    // What is to outlive a stop.
    after.retain(|line| !line.contains("/var/lib/istio-vm-agent/"));
    expect_same(&before, &after)?;

    vm.run(&["systemctl", "start", AGENT])?;
    for end in [gives_up, waits_for_its_restart] {
        end(vm).context("while no agent runs")?;
        let mut after = traces(vm)?;
        after.retain(|line| !line.contains("/var/lib/istio-vm-agent/"));
        expect_same(&before, &after)?;
        vm.run(&["systemctl", "start", AGENT])?;
    }
    for _ in 0..REBOOTS {
        vm.shut_down()?;
        vm.boot()?;
        expect_calls(mesh)?;
    }
    Ok(())
}

/// A stop after the agent has ended for good, as it does over a wrong configuration.
fn gives_up(vm: &mut Booted) -> Result<()> {
    let good = fs::read_to_string(vm.path(CONFIG))?;
    fs::write(vm.path(CONFIG), format!("{good}\n[wrong]\n"))?;
    // Its failure is what is wanted.
    let _ = vm.run(&["systemctl", "restart", AGENT]);
    e2e::eventually("the agent to give up", e2e::PATIENCE, || {
        let state = vm.property(AGENT, "ActiveState")?;
        ensure!(state == "failed", "it is {state}");
        Ok(())
    })?;
    ensure!(
        vm.property(ENVOY, "ActiveState")? == "active",
        "a failure stopped Envoy"
    );
    fs::write(vm.path(CONFIG), good)?;
    stop_without_an_agent(vm)
}

/// A stop between a crash and the start that follows it.
fn waits_for_its_restart(vm: &mut Booted) -> Result<()> {
    let folder = drop_in(vm, "[Service]\nRestartSec=1h\n")?;
    vm.kill(AGENT)?;
    e2e::eventually("the agent to be dead", e2e::PATIENCE, || {
        let state = vm.property(AGENT, "SubState")?;
        ensure!(state == "auto-restart", "it is {state}");
        Ok(())
    })?;
    ensure!(vm.property(ENVOY, "ActiveState")? == "active", "a crash stopped Envoy");
    stop_without_an_agent(vm)?;
    fs::remove_dir_all(&folder)?;
    vm.run(&["systemctl", "daemon-reload"]).map(drop)
}

fn stop_without_an_agent(vm: &Booted) -> Result<()> {
    vm.run(&["systemctl", "stop", AGENT])?;
    // There was no process to wait for.
    e2e::eventually("the host to be put back", e2e::PATIENCE, || {
        let state = vm.property("istio-vm-agent-left.service", "ActiveState")?;
        ensure!(state == "inactive", "the unit is {state}");
        Ok(())
    })?;
    ensure!(vm.property(ENVOY, "ActiveState")? == "inactive", "Envoy runs on");
    Ok(())
}
