//! A VM on which programs of Debian's run: in its network, with files of its own in the place of this machine's.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::rig::*;

/// A daemon's start on a busy machine.
pub(crate) const START: Duration = Duration::from_secs(60);

pub(crate) struct Installed {
    pub(crate) rig: Rig,
    /// Has the folder of its own by its last name.
    pub(crate) folder: tempfile::TempDir,
    /// The one that holds the mount namespace is the last, daemons are before it, the newest first.
    processes: Vec<Child>,
}

impl Installed {
    /// `files` is the folder that programs change.
    pub(crate) fn new(test: &str, files: &str) -> Self {
        let rig = Rig::new(test);
        let folder = tempfile::tempdir().unwrap();
        command(&format!("chmod 755 {}", folder.path().display()));
        command(&format!("cp -a {files} {}", folder.path().display()));
        let own = folder.path().join(files.rsplit('/').next().unwrap());
        let script = format!(
            "mount --bind {} {files} && mount -t tmpfs run /run && mkdir /run/lock && exec sleep infinity",
            own.display()
        );
        let net = format!("--net=/run/netns/{}", rig.vm);
        let mut holder = Command::new("nsenter");
        holder.args([&net, "unshare", "--mount", "sh", "-c", &script]);
        let made = Self {
            processes: vec![holder.spawn().unwrap()],
            rig,
            folder,
        };
        eventually("the VM's own files", START, || {
            made.shell("test -d /run/lock -a ! -e /run/netns").is_ok()
        });
        made
    }

    /// Runs a line in the VM as an operator would; its output.
    pub(crate) fn shell(&self, line: &str) -> Result<String, String> {
        let output = self.inside(line).output().unwrap();
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{line}: {output:?}")),
        }
    }

    /// Starts a daemon.
    pub(crate) fn start(&mut self, line: &str) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let mut daemon = self.inside(&format!("exec {line}"));
        let daemon = daemon.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        self.processes.insert(0, daemon);
    }

    /// The process whose network and files are the VM's.
    pub(crate) fn holder(&self) -> u32 {
        self.processes.last().unwrap().id()
    }

    fn inside(&self, line: &str) -> Command {
        let holder = self.holder().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &holder, "--mount", "--net", "sh", "-c", line]);
        command
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
