//! The VM that is shown: what an operator finds on it, its shell, and what there is to type.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use e2e::mesh::Mesh;
use e2e::network::{EtcView, Host};
use e2e::programs;

/// Where the VM finds its bundle.
const BUNDLE: &str = "/etc/istio-vm-agent/bundle";
const CART: &str = "cartservice.onlineboutique";

/// The page: comments and commands, as a script has them. `image` has Envoy.
pub(crate) fn page(image: &str) -> String {
    format!(
        "# Asks the bundle who this VM is, fetches Envoy, checks the host, and says what joining would change.
istio-vm-agent up --yes --directory {BUNDLE} --envoy-image {image}

# No systemd is here to start the agent at each boot: it is started by hand.
istio-vm-agent run >/run/agent.log 2>&1 &

# Goes on where the first one ended: waits until this VM serves, and calls a pod.
istio-vm-agent up --yes --call {CART}.svc.cluster.local:7070

# This VM calls a pod by its name. The pod saw a certificate: the VM's, by the name in URI.
vm-calls-pod

# And a pod calls the application of this VM, which saw the pod's.
pod-calls-vm

# How this VM is, and where a call of its goes.
istio-vm-agent status
istio-vm-agent explain {CART}:7070

# Ends the agent, which is systemd's task elsewhere, and leaves the mesh: the host is as it was.
kill $! && wait
istio-vm-agent down --purge
"
    )
}

/// Puts the bundle and the programs of the page where the VM has them.
pub(crate) fn furnish(mesh: &Mesh) -> Result<()> {
    let bundle = mesh.network.etc(Host::Vm).join(BUNDLE.trim_start_matches("/etc/"));
    fs::create_dir_all(&bundle)?;
    for file in fs::read_dir(mesh.vm.bundle())? {
        let file = file?;
        let copy = bundle.join(file.file_name());
        fs::copy(file.path(), &copy)?;
        // One of them is a token.
        fs::set_permissions(copy, Permissions::from_mode(0o600))?;
    }
    let folder = folder(mesh);
    for name in ["lib", "run", "bin"] {
        fs::create_dir_all(folder.join(name))?;
    }
    for program in [programs::agent()?, programs::load()?] {
        let name = program.file_name().context("a program without a name")?;
        fs::copy(&program, folder.join("bin").join(name))?;
    }
    let pod = mesh.network.pid_of(Host::Pod, "envoy")?;
    let (inbound, outbound) = (mesh.calls_to_the_vm(), mesh.calls_to_the_pod());
    let name = inbound.authority.as_ref().unwrap_or(&inbound.target);
    let inbound = format!(
        "nsenter --net --target {pod} load --target {} --authority {name}",
        inbound.target
    );
    call(mesh, "pod-calls-vm", &inbound)?;
    call(mesh, "vm-calls-pod", &format!("load --target {}", outbound.target))
}

/// Makes a program of a call, which prints the answer of a server that has seen a certificate.
fn call(mesh: &Mesh, name: &str, line: &str) -> Result<()> {
    let script = format!(
        "#!/bin/sh\n\
         # The other side hears of a VM a moment after istiod does.\n\
         for _ in $(seq 30); do {line} --count 1 | grep spiffe: && exit; sleep 1; done\n\
         {line} --count 1\n\
         exit 1\n"
    );
    let file = folder(mesh).join("bin").join(name);
    fs::write(&file, script)?;
    Ok(fs::set_permissions(file, Permissions::from_mode(0o755))?)
}

/// bash on the VM, at this terminal or reading stdin.
pub(crate) fn shell(mesh: &Mesh) -> Command {
    let mut command = mesh.network.command(Host::Vm, EtcView::Plain, "sh");
    // This machine's own systemd is in /run: the agent must not find it.
    command.arg("-c").arg(
        r#"for name in var/lib:lib run:run usr/local/bin:bin; do mount --bind "$0/${name#*:}" "/${name%:*}" || exit; done
           PATH=/usr/local/bin:$PATH exec bash --norc "$@""#,
    );
    command.arg(folder(mesh)).env("PS1", r"vm:\w# ").env("HISTFILE", "");
    command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
    command
}

/// bash on the VM that shows and runs a page, and ends with the first command that fails. A Ctrl-C doesn't reach it.
pub(crate) fn typist(mesh: &Mesh, page: &str) -> Result<Command> {
    let file = folder(mesh).join("page");
    fs::write(&file, page)?;
    let mut command = shell(mesh);
    command.args(["-ev"]).arg(file).stdin(Stdio::null()).process_group(0);
    Ok(command)
}

fn folder(mesh: &Mesh) -> PathBuf {
    mesh.network.folder().join("demo")
}
