//! Envoy as a process of the agent's, where no unit is given.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::launch_spec::Launch;
use super::log_pipes::Output;
use crate::envoy::options::OWNER;

/// Starts Envoy as its own user, in its own process group, with no environment. Nothing ends it with the agent.
#[expect(
    clippy::disallowed_methods,
    reason = "a process that outlives the agent, watched by its pidfd"
)]
pub(super) fn start(launch: &Launch, output: &Output) -> std::io::Result<u32> {
    let (stdout, stderr) = output.to_stdio()?;
    let (program, arguments) = launch
        .command_line
        .split_first()
        .ok_or(std::io::ErrorKind::InvalidInput)?;
    let child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // Drops the supplementary groups too.
        .uid(OWNER.uid)
        .gid(OWNER.gid)
        .process_group(0)
        .spawn()?;
    raise_limit(child.id());
    Ok(child.id())
}

/// A connection is two descriptors, and the default of 1024 is for programs that use select(2).
fn raise_limit(pid: u32) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Err(error) = prlimit(pid, Resource::Nofile, raised) {
        tracing::debug!("failed to raise Envoy's limit of open files: {error}");
    }
}
