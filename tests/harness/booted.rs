//! A VM with a systemd of its own: Debian from packaging/test/root, booted by systemd-nspawn in a host's namespace.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::network::{Host, Network};
use crate::process::{Process, output_of};
use crate::{cgroup, eventually, programs};

/// From power to a systemd that has started all, and from a power button to off, on a busy machine.
const BOOT: Duration = Duration::from_secs(120);

/// A VM's disk, and the VM while it is on. Dropped: off, and its disk gone.
#[derive(Debug)]
pub struct Booted {
    folder: PathBuf,
    logs: PathBuf,
    namespace: String,
    network: String,
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    nspawn: Process,
    /// The pid of the VM's systemd here.
    init: String,
}

impl Booted {
    /// A disk with Envoy and the application on it, and the VM booted from it. The disk is a layer over the shared
    /// root file system: nothing that a case does to it stays.
    pub fn start(network: &Network, suite: &str) -> Result<Self> {
        let folder = network.folder().join("disk");
        for part in ["upper", "work", "root", "docker"] {
            fs::create_dir_all(folder.join(part))?;
        }
        let mut vm = Self {
            folder,
            logs: network.folder().to_owned(),
            namespace: network.namespace(Host::Vm),
            network: network.id().to_owned(),
            on: None,
        };
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o"]).arg(format!(
            "lowerdir={},upperdir={1}/upper,workdir={1}/work",
            root_file_system(suite)?,
            vm.folder.display()
        ));
        mount.arg(vm.folder.join("root"));
        output_of(mount).context("failed to lay the VM's disk over the shared one")?;
        fs::copy(programs::envoy()?, vm.path("/usr/local/bin/envoy"))?;
        fs::copy(programs::productcatalog()?, vm.path("/usr/local/bin/productcatalog"))?;
        vm.boot()?;
        Ok(vm)
    }

    /// Where a file of the VM is here.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.join("root").join(inside.trim_start_matches('/'))
    }

    /// Powers it on, and waits until its systemd has started all.
    pub fn boot(&mut self) -> Result<()> {
        let mut nspawn = cgroup::command_within(&self.network, "systemd-nspawn")?;
        nspawn.args([
            "--quiet",
            "--boot",
            "--console=pipe",
            "--register=no",
            "--keep-unit",
            "--capability=all",
        ]);
        nspawn.arg("--directory").arg(self.folder.join("root"));
        nspawn.arg(format!("--network-namespace-path=/run/netns/{}", self.namespace));
        // A disk of its own kind for Docker's layers: an overlay can't lie over an overlay.
        nspawn.arg(format!(
            "--bind={}:/var/lib/docker",
            self.folder.join("docker").display()
        ));
        // runc makes a keyring for each container, and its device rules are programs of the kernel.
        nspawn.arg("--system-call-filter=@keyring bpf");
        // dockerd turns on forwarding.
        nspawn.env("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network");
        // As current systems have it. The first version's controllers are read-only in there, and runc needs them.
        nspawn.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let mut nspawn = Process::spawn("nspawn", nspawn, &self.logs)?;
        let init = eventually("the VM's first process", BOOT, || {
            nspawn.check_alive()?;
            let pid = nspawn.pid();
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
            let init = children.split_whitespace().next().context("it has none")?.to_owned();
            let name = fs::read_to_string(format!("/proc/{init}/comm"))?;
            ensure!(name.trim() == "systemd", "it is {name}");
            Ok(init)
        })?;
        self.on = Some(On { nspawn, init });
        eventually("the VM's start", BOOT, || {
            let jobs = self.run(&["systemctl", "list-jobs", "--no-legend"])?;
            ensure!(jobs.trim().is_empty(), "{jobs}");
            Ok(())
        })
    }

    /// Powers it off in order.
    pub fn shut_down(&mut self) -> Result<()> {
        self.run(&["systemctl", "--no-block", "poweroff"])?;
        let mut on = self.on.take().context("it is off")?;
        on.nspawn.wait(BOOT).map(drop)
    }

    /// Powers it off as when the plug is pulled.
    pub fn cut_power(&mut self) -> Result<()> {
        let mut on = self.on.take().context("it is off")?;
        let init = on.init.parse().ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(init, Signal::KILL)?;
        on.nspawn.wait(BOOT).map(drop)
    }

    /// Runs a program in the VM to its end; its stdout, or an error with its stderr.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        output_of(self.command(command)?)
    }

    /// A program in the VM, not started yet.
    pub fn command(&self, line: &[&str]) -> Result<Command> {
        let On { init, .. } = self.on.as_ref().context("the VM is off")?;
        let mut command = Command::new("nsenter");
        command.args(["--target", init]);
        command.args([
            "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd",
        ]);
        command.args([
            "env",
            "-i",
            "HOME=/root",
            "LANG=C.UTF-8",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        ]);
        command.arg("DEBIAN_FRONTEND=noninteractive").args(line);
        Ok(command)
    }

    /// Signals a unit's main process.
    pub fn kill(&self, unit: &str) -> Result<()> {
        self.run(&["systemctl", "kill", "--signal=KILL", "--kill-who=main", unit])
            .map(drop)
    }

    /// A property of a unit.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        let value = self.run(&["systemctl", "show", "--value", &format!("--property={name}"), unit])?;
        Ok(value.trim().to_owned())
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if let Some(On { nspawn, .. }) = &mut self.on {
            // nspawn takes its VM with it.
            let _ = nspawn.signal(Signal::TERM);
            let _ = nspawn.wait(Duration::from_secs(20));
        }
        self.on = None;
        let _ = output_of({
            let mut umount = Command::new("umount");
            umount.arg("--lazy").arg(self.folder.join("root"));
            umount
        });
    }
}

/// Where the VM's root file system is, for all VMs to lie over it; made if need be.
pub fn root_file_system(suite: &str) -> Result<String> {
    let mut make = Command::new(programs::repository("packaging/test/root"));
    make.arg(suite);
    let path = output_of(make).context("failed to make the VM's root file system")?;
    Ok(path.trim().to_owned())
}
