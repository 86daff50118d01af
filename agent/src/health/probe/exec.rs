//! Probes by a command: status 0 is healthy.
//!
//! It runs as nobody with group istio-proxy: not as root, not as Envoy's user, whose sockets hand out the
//! workload's key; and by its group the rules let its connections pass. Its environment is a PATH and nothing else.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::config::ports::PROXY_GID;

/// `nobody` on every Linux distribution.
const NOBODY: u32 = 65534;
/// As much of stderr as a reason shows.
const MAX_REASON: usize = 256;

/// Runs the command to its end. Dropped before that, it kills the command and all that it started.
pub(super) async fn run(command: &[String]) -> Result<()> {
    let mut group = Group(spawn(command)?);
    let mut said = Vec::new();
    let stderr = group.0.stderr.take();
    let status = {
        let mut buffer = [0; 1 << 10];
        let mut stderr = stderr.context("the command has no stderr")?;
        let mut open = true;
        loop {
            tokio::select! {
                // What it said before it ended is read before its end is noticed.
                biased;
                read = stderr.read(&mut buffer), if open => {
                    let read = read.unwrap_or_default();
                    open = read > 0;
                    said.extend(buffer[..read].iter().take(MAX_REASON.saturating_sub(said.len())));
                }
                status = group.0.wait() => break status.context("failed to wait for the command")?,
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    bail!("`{}` ended with {status}: {}", command.join(" "), said.trim())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command with a deadline and without privileges, which Host::run is not for"
)]
fn spawn(command: &[String]) -> Result<Child> {
    let (program, arguments) = command.split_first().context("the command is empty")?;
    let mut process = Command::new(program);
    process
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if geteuid().is_root() {
        // Supplementary groups go with the user.
        process.gid(PROXY_GID).uid(NOBODY);
    }
    process.spawn().with_context(|| format!("failed to run `{program}`"))
}

struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // No id means that it ended and was waited for: its number may be another's by now.
        let leader = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(leader) = leader {
            // It may have ended this moment.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}
