//! The package on a booted VM: installed by apt, run by systemd, purged.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::docker::image_tar;
use e2e::istiod::PeerAuthentication;
use e2e::mesh::{Mesh, with_mesh};
use e2e::network::Host;
use e2e::programs;
use e2e::vm::{Application, Settings};
use libtest_mimic::Trial;

use crate::both;

const AGENT: &str = "istio-vm-agent.service";
const ENVOY: &str = "istio-vm-agent-envoy.service";

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("the package: first contact, and a purge that leaves nothing", |kind| {
            on_a_vm(kind, first_contact_and_purge)
        }),
        both(
            "the package: no call fails while the agent is restarted and killed",
            |kind| on_a_vm(kind, restarts),
        ),
        both(
            "the package: five boots beside dockerd, and no call passes the mesh by",
            |kind| on_a_vm(kind, boots_beside_docker),
        ),
        both("the package: a stop leaves the mesh, a reboot joins it again", |kind| {
            on_a_vm(kind, stop_and_reboot)
        }),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn on_a_vm(kind: e2e::mesh::Kind, case: fn(&mut Mesh, &mut Booted) -> Result<()>) -> Result<()> {
    let settings = Settings {
        application: Application::None,
        ..Settings::default()
    };
    with_mesh(kind, settings, |mesh| {
        let mut vm = Booted::start(&mesh.network)?;
        let ended = case(mesh, &mut vm);
        ended.map_err(
            |error| match vm.run(&["journalctl", "--no-pager", "--lines=100", "-u", "istio-vm-agent*"]) {
                Ok(journal) => error.context(journal),
                Err(_) => error,
            },
        )
    })
}

fn first_contact_and_purge(_mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
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

    vm.run(&["apt-get", "purge", "--yes", "istio-vm-agent"])?;
    expect_same(&before, &traces(vm)?)
}

fn restarts(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    const KILLS: u32 = 10;
    const RATE: usize = 200;
    const SECONDS: usize = 45;
    join(mesh, vm)?;
    let envoy = vm.property(ENVOY, "MainPID")?;
    let load = mesh
        .calls_to_the_vm()
        .at_rate(RATE as u32, Duration::from_secs(SECONDS as u64));
    let calling = load.start(&mesh.network, Host::Pod)?;
    vm.run(&["systemctl", "restart", AGENT])?;
    for _ in 0..KILLS {
        let before = vm.property(AGENT, "MainPID")?;
        vm.kill(AGENT)?;
        e2e::eventually("the agent to be ready again", Duration::from_secs(20), || {
            let (state, pid) = (vm.property(AGENT, "ActiveState")?, vm.property(AGENT, "MainPID")?);
            ensure!(state == "active" && pid != "0" && pid != before, "it is {state}");
            Ok(())
        })?;
    }
    // The same version again: what an upgrade does.
    let earlier = vm.property(AGENT, "MainPID")?;
    vm.run(&["dpkg", "--install", PACKAGE])?;
    ensure!(
        vm.property(AGENT, "MainPID")? != earlier,
        "the installation started no new agent"
    );
    ensure!(
        calling.so_far().0.len() < RATE * SECONDS,
        "the calls ended before the last restart: they say nothing about it"
    );
    calling.finish()?.expect_all_answered()?;
    ensure!(vm.property(ENVOY, "MainPID")? == envoy, "it is not the Envoy of before");
    Ok(())
}

fn stop_and_reboot(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
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
    for _ in 0..REBOOTS {
        vm.shut_down()?;
        vm.boot()?;
        expect_calls(mesh)?;
    }
    Ok(())
}

fn boots_beside_docker(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    const REBOOTS: u32 = 5;
    const NAME: &str = "productcatalogservice";
    const IMAGE: &str = "productcatalogservice:case";
    install(vm)?;
    fs::copy(image_tar(mesh.network.folder())?, vm.path("/root/image.tar"))?;
    let entry = r#"ENTRYPOINT ["/productcatalog"]"#;
    vm.run(&["docker", "import", "--change", entry, "/root/image.tar", IMAGE])?;
    configure(mesh, vm)?;
    let container = format!("[workload.container]\nname = {NAME:?}\nimage = {IMAGE:?}\nports = [\"3550:3550\"]\n");
    let config = vm.path(CONFIG);
    fs::write(&config, fs::read_to_string(&config)? + &container)?;
    mesh.set_peer_authentication(PeerAuthentication::Strict)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;

    for _ in 0..REBOOTS {
        let calling = mesh
            .plaintext_calls_to_the_vm()
            .at_rate(20, Duration::from_secs(20))
            .start(&mesh.network, Host::Outside)?;
        vm.shut_down()?;
        vm.boot()?;
        expect_calls(mesh)?;
        let calls = calling.finish()?;
        ensure!(calls.answered().next().is_none(), "calls passed the mesh by: {calls}");
    }
    Ok(())
}

/// Where the package is in the VM.
const PACKAGE: &str = "/root/istio-vm-agent.deb";

/// The agent's configuration in the VM.
const CONFIG: &str = "/etc/istio-vm-agent/config.toml";

fn install(vm: &Booted) -> Result<()> {
    fs::copy(programs::package()?, vm.path(PACKAGE))?;
    vm.run(&["apt-get", "install", "--yes", "--no-install-recommends", PACKAGE])
        .map(drop)
}

/// Gives the VM its configuration and its bundle.
fn configure(mesh: &Mesh, vm: &Booted) -> Result<()> {
    let bundle = vm.path("/etc/istio-vm-agent/bundle");
    fs::create_dir_all(&bundle)?;
    for file in fs::read_dir(mesh.vm.bundle())? {
        let file = file?;
        fs::copy(file.path(), bundle.join(file.file_name()))?;
    }
    let config = format!(
        "[join]\ndirectory = {{ path = \"/etc/istio-vm-agent/bundle\" }}\n[network]\naddress = \"{}\"\n",
        Host::Vm.ipv4()
    );
    fs::write(vm.path(CONFIG), config)?;
    Ok(())
}

/// The application as the operator's own unit.
fn start_application(vm: &Booted) -> Result<()> {
    let unit = "[Service]\nExecStart=/usr/local/bin/productcatalog\n[Install]\nWantedBy=multi-user.target\n";
    fs::write(vm.path("/etc/systemd/system/productcatalog.service"), unit)?;
    vm.run(&["systemctl", "enable", "--quiet", "--now", "productcatalog.service"])
        .map(drop)
}

fn join(mesh: &Mesh, vm: &Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    start_application(vm)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)
}

/// That the pod is served by the VM, soon.
fn expect_calls(mesh: &Mesh) -> Result<()> {
    let load = mesh.calls_to_the_vm();
    e2e::eventually("the VM to serve the pod", Duration::from_secs(60), || {
        load.clone()
            .at_rate(20, Duration::from_secs(1))
            .run(&mesh.network, Host::Pod)?
            .expect_all_answered()
    })
}

/// Every file with its owner and mode, the text of those in /etc, and netfilter's rules, a line each.
fn traces(vm: &Booted) -> Result<BTreeSet<String>> {
    let not_ours = NOT_OURS.map(|path| format!("-path {path}")).join(" -o ");
    let script = format!(
        "find / -xdev '(' {not_ours} ')' -prune -o -printf '%p %y %m %u:%g %l\\n'; \
         find /etc -xdev '(' {not_ours} ')' -prune -o -type f -exec sha256sum {{}} +; \
         nft -s list ruleset; iptables-save | grep -v '^[#:]'; true"
    );
    let text = vm.run(&["sh", "-c", &script])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// What apt, dpkg, useradd and a running system write by themselves.
const NOT_OURS: [&str; 16] = [
    "/var/log",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/cache",
    "/var/lib/systemd",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/tmp",
    "/var/tmp",
    "/root",
    "/etc/passwd-",
    "/etc/group-",
    "/etc/shadow-",
    "/etc/gshadow-",
    "/etc/.pwd.lock",
    "/etc/ld.so.cache",
];

fn expect_same(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<()> {
    let gone: Vec<_> = before.difference(after).collect();
    let left: Vec<_> = after.difference(before).collect();
    ensure!(
        gone.is_empty() && left.is_empty(),
        "the VM is not as it was\ngone: {gone:#?}\nleft: {left:#?}"
    );
    Ok(())
}
