//! Envoy as a process of the agent's, where there is no unit for it.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::launch_spec::LaunchSpec;
use super::log_pipes::LogPipes;
use crate::part::ENVOY_USER;

/// Starts Envoy as its own user, in its own process group, with no environment, and returns its pid. Nothing ends it
/// with the agent.
#[expect(
    clippy::disallowed_methods,
    reason = "a process that outlives the agent, watched by its pidfd"
)]
pub(super) fn start(spec: &LaunchSpec, log_pipes: &LogPipes) -> std::io::Result<u32> {
    let (stdout, stderr) = log_pipes.to_stdio()?;
    let (program, arguments) = spec
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
        .uid(ENVOY_USER.uid)
        .gid(ENVOY_USER.gid)
        .process_group(0)
        .spawn()?;
    raise_limit(child.id());
    Ok(child.id())
}

/// Raises the limit of open files to the maximum: a connection is two descriptors, and the default of 1024 is for
/// programs that use select(2).
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
