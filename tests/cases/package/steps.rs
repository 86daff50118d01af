//! Steps of the package's cases on their VM.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::docker::image_tar;
use e2e::mesh::Mesh;
use e2e::network::Host;
use e2e::programs;

/// The agent's unit.
pub(crate) const AGENT: &str = "istio-vm-agent.service";
/// Envoy's unit, and the one that takes over from it.
pub(super) const ENVOY: &str = "istio-vm-agent-envoy@a.service";
pub(super) const OTHER_ENVOY: &str = "istio-vm-agent-envoy@b.service";

/// Where the package is in the VM.
pub(super) const PACKAGE: &str = "/root/istio-vm-agent.deb";

/// The agent's configuration in the VM.
pub(crate) const CONFIG: &str = "/etc/istio-vm-agent/config.toml";

pub(crate) fn install(vm: &Booted) -> Result<()> {
    fs::copy(programs::package()?, vm.path(PACKAGE))?;
    vm.run(&["apt-get", "install", "--yes", "--no-install-recommends", PACKAGE])
        .map(drop)
}

/// Gives the VM its bundle.
pub(super) fn copy_bundle(mesh: &Mesh, vm: &Booted) -> Result<()> {
    let bundle = vm.path("/etc/istio-vm-agent/bundle");
    fs::create_dir_all(&bundle)?;
    for file in fs::read_dir(mesh.vm.bundle())? {
        let file = file?;
        fs::copy(file.path(), bundle.join(file.file_name()))?;
    }
    Ok(())
}

/// Gives the VM its configuration and its bundle.
pub(super) fn configure(mesh: &Mesh, vm: &Booted) -> Result<()> {
    copy_bundle(mesh, vm)?;
    let config = format!(
        "[join]\ndirectory = {{ path = \"/etc/istio-vm-agent/bundle\" }}\n[network]\naddress = \"{}\"\n",
        Host::Vm.ipv4()
    );
    fs::write(vm.path(CONFIG), config)?;
    Ok(())
}

/// The application as the operator's own unit.
pub(crate) fn start_application(vm: &Booted) -> Result<()> {
    let unit = "[Service]\nExecStart=/usr/local/bin/productcatalog\n[Install]\nWantedBy=multi-user.target\n";
    fs::write(vm.path("/etc/systemd/system/productcatalog.service"), unit)?;
    vm.run(&["systemctl", "enable", "--quiet", "--now", "productcatalog.service"])
        .map(drop)
}

pub(super) fn join(mesh: &Mesh, vm: &Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    start_application(vm)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)
}

/// Waits until the pod is served by the VM.
pub(crate) fn expect_calls(mesh: &Mesh) -> Result<()> {
    let load = mesh.calls_to_the_vm();
    e2e::eventually("the VM to serve the pod", e2e::PATIENCE, || {
        load.clone()
            .at_rate(20, Duration::from_secs(1))
            .run(&mesh.network, Host::Pod)?
            .expect_all_answered()
    })
}

/// Every file with its owner and mode, the text of those in /etc, and netfilter's rules, a line each.
pub(crate) fn traces(vm: &Booted) -> Result<BTreeSet<String>> {
    let not_ours = NOT_OURS.map(|path| format!("-path {path}")).join(" -o ");
    let script = format!(
        "find / -xdev '(' {not_ours} ')' -prune -o -printf '%p %y %m %u:%g %l\\n'; \
         find /etc -xdev '(' {not_ours} ')' -prune -o -type f -exec sha256sum {{}} +; \
         nft -s list ruleset; iptables-save | grep -v '^[#:]'; true"
    );
    let text = vm.run(&["sh", "-c", &script])?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// Paths that apt, dpkg, useradd and a running system write by themselves.
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

pub(crate) fn expect_same(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<()> {
    let gone: Vec<_> = before.difference(after).collect();
    let left: Vec<_> = after.difference(before).collect();
    ensure!(
        gone.is_empty() && left.is_empty(),
        "the VM is not as it was\ngone: {gone:#?}\nleft: {left:#?}"
    );
    Ok(())
}

/// Configures a container of the application's image, which the VM has.
pub(super) fn configure_container(mesh: &Mesh, vm: &Booted) -> Result<()> {
    const IMAGE: &str = "productcatalogservice:case";
    fs::copy(image_tar(mesh.network.folder())?, vm.path("/root/image.tar"))?;
    let entry = r#"ENTRYPOINT ["/productcatalog"]"#;
    vm.run(&["docker", "import", "--change", entry, "/root/image.tar", IMAGE])?;
    let container =
        format!("[workload.container]\nname = \"productcatalogservice\"\nimage = {IMAGE:?}\nports = [\"3550:3550\"]\n");
    let config = vm.path(CONFIG);
    fs::write(&config, fs::read_to_string(&config)? + &container)?;
    Ok(())
}

/// Waits until a unit has another main process than `before`, and is active.
pub(super) fn expect_another(vm: &Booted, unit: &str, before: &str) -> Result<()> {
    e2e::eventually("the agent to be ready again", e2e::PATIENCE, || {
        let (state, pid) = (vm.property(unit, "ActiveState")?, vm.property(unit, "MainPID")?);
        ensure!(state == "active" && pid != "0" && pid != before, "it is {state}");
        Ok(())
    })
}
