//! Short-lived commands: argv and stdin in, stdout out, stderr in the error. None runs for ever or prints without end.

mod conversation;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use conversation::{Conversation, Excess};

/// Time that a command is given when nothing else is said: all that the agent runs take well below a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Where programs are.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

use nix::unistd::geteuid;

use super::{Owner, Watched};
use crate::facts::HostBridge;

/// A command and its stdin.
#[derive(Clone, Eq, PartialEq)]
pub struct Invocation {
    /// Program and arguments. Never a secret.
    pub argv: Vec<String>,
    /// The text that it reads.
    pub stdin: String,
    /// Variables beside PATH and LC_ALL; their values may be secrets.
    pub env: Vec<(String, String)>,
    /// Time that the command may take.
    pub limit: Duration,
    /// Who runs it; absent: the caller.
    pub user: Option<Owner>,
}

impl Invocation {
    /// A command with empty stdin, and 30 s to run.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: String::new(),
            env: Vec::new(),
            limit: LIMIT,
            user: None,
        }
    }

    /// Gives the command `text` to read.
    pub fn with_stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = text.into();
        self
    }

    /// Makes the command another user's, of no other group and with no right of root's. A caller that isn't root runs it
    /// as itself.
    pub fn as_user(mut self, user: Owner) -> Self {
        self.user = geteuid().is_root().then_some(user);
        self
    }

    /// Adds variables to the command's environment.
    pub fn with_env(mut self, env: Vec<(String, String)>) -> Self {
        self.env = env;
        self
    }

    /// Gives the command so long to run.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }
}

impl fmt::Debug for Invocation {
    /// Without the values of variables.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("argv", &self.argv)
            .field("stdin", &self.stdin)
            .field("env", &self.env.iter().map(|(name, _)| name).collect::<Vec<_>>())
            .field("limit", &self.limit)
            .finish()
    }
}

impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.join(" "))
    }
}

/// Why a command gave no result.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The command ran and failed.
    #[error("`{call}` failed ({status}): {stderr}")]
    Failed {
        /// The command.
        call: Box<Invocation>,
        /// `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
        /// The command's words on stderr, trimmed.
        stderr: String,
    },
    /// The program isn't installed.
    #[error("`{}` is not installed", call.argv.first().map_or("", String::as_str))]
    NotFound {
        /// The command.
        call: Box<Invocation>,
    },
    /// The command went over a bound, and was ended with all that it had started.
    #[error("`{call}` {excess}, and was ended")]
    Unbounded {
        /// The command.
        call: Box<Invocation>,
        /// `took longer than 30s`, `printed more than 16777216 bytes`.
        excess: String,
    },
    /// The command could not be started or talked to.
    #[error("failed to run `{call}`: {reason}")]
    Io {
        /// The command.
        call: Box<Invocation>,
        /// Why; named so that a chain of errors doesn't say it again.
        reason: io::Error,
    },
}

/// Runs short-lived commands; blocks.
pub trait Run: fmt::Debug + Send + Sync {
    /// Runs to completion and returns stdout.
    fn run(&self, call: &Invocation) -> Result<String, CommandError>;

    /// The command line by which it runs where it is meant to.
    fn argv(&self, call: &Invocation) -> Vec<String> {
        call.argv.clone()
    }

    /// The bridges there.
    fn bridges(&self) -> io::Result<Vec<HostBridge>> {
        super::bridges::bridges()
    }

    /// A socket to netfilter there; where commands are answered out of a book there is none, and so they are asked.
    fn netfilter(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// A socket that gets word of each change to these tables there.
    fn kernel_changes(&self, watched: Watched) -> io::Result<OwnedFd> {
        super::kernel_changes::subscribe(watched)
    }
}

/// Real processes, with a minimal environment.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Run for System {
    fn netfilter(&self) -> io::Result<OwnedFd> {
        super::packet_filter::connect()
    }

    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let (status, said) = execute(call).map_err(|reason| match reason.kind() {
            io::ErrorKind::NotFound => CommandError::NotFound {
                call: Box::new(call.clone()),
            },
            _ => CommandError::Io {
                call: Box::new(call.clone()),
                reason,
            },
        })?;
        let excess = match said.excess {
            Some(Excess::Time) => format!("took longer than {:?}", call.limit),
            Some(Excess::Output(max)) => format!("printed more than {max} bytes"),
            None if status.success() => return Ok(String::from_utf8_lossy(&said.stdout).into_owned()),
            None => {
                return Err(CommandError::Failed {
                    call: Box::new(call.clone()),
                    status: status.to_string(),
                    stderr: String::from_utf8_lossy(&said.stderr).trim().to_owned(),
                });
            }
        };
        Err(CommandError::Unbounded {
            call: Box::new(call.clone()),
            excess,
        })
    }
}

fn execute(call: &Invocation) -> io::Result<(ExitStatus, Conversation)> {
    let (program, arguments) = call.argv.split_first().ok_or_else(|| io::Error::other("empty argv"))?;
    let mut command = Command::new(program);
    if let Some(Owner { uid, gid }) = call.user {
        // Drops the supplementary groups too.
        command.uid(uid).gid(gid).current_dir("/");
    }
    let mut child = command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("LC_ALL", "C")
        .envs(call.env.iter().map(|(name, value)| (name, value)))
        // What it starts ends with it.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let conversation = conversation::hold(&mut child, call.stdin.as_bytes(), call.limit);
    if !matches!(conversation, Ok(Conversation { excess: None, .. })) {
        conversation::end(&child);
    }
    let status = child.wait()?;
    Ok((status, conversation?))
}

/// A runner that waits for no command longer than `limit`, whatever the command's own.
#[derive(Debug)]
pub(super) struct Hurried {
    pub(super) runner: Arc<dyn Run>,
    pub(super) limit: Duration,
}

impl Run for Hurried {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let limit = call.limit.min(self.limit);
        self.runner.run(&call.clone().within(limit))
    }

    fn argv(&self, call: &Invocation) -> Vec<String> {
        self.runner.argv(call)
    }

    fn bridges(&self) -> io::Result<Vec<HostBridge>> {
        self.runner.bridges()
    }

    fn netfilter(&self) -> io::Result<OwnedFd> {
        self.runner.netfilter()
    }

    fn kernel_changes(&self, watched: Watched) -> io::Result<OwnedFd> {
        self.runner.kernel_changes(watched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_reads_stdin_and_gives_stdout() {
        let text = "x".repeat(1 << 20);
        assert_eq!(
            System.run(&Invocation::new(["cat"]).with_stdin(text.clone())).unwrap(),
            text
        );
    }

    #[test]
    fn failure_carries_what_the_command_said() {
        let error = System
            .run(&Invocation::new(["ls", "/no/such"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("`ls /no/such` failed (exit status: 2): ") && error.contains("/no/such"),
            "{error}"
        );
    }

    /// Needs root.
    #[test]
    fn command_of_another_user_has_nothing_of_root_s() {
        let user = Owner { uid: 1337, gid: 1337 };
        let rights = Invocation::new(["grep", "-E", "^(Uid|Groups|CapEff)", "/proc/self/status"]).as_user(user);
        let text = System.run(&rights).unwrap();
        let words: Vec<&str> = text.split_whitespace().collect();
        let none = "0000000000000000";
        assert_eq!(
            words,
            ["Uid:", "1337", "1337", "1337", "1337", "Groups:", "CapEff:", none]
        );
    }

    #[test]
    fn program_that_can_not_be_run_is_told_once_in_a_chain_of_errors() {
        let error = anyhow::Error::from(System.run(&Invocation::new(["/tmp"])).unwrap_err());
        assert_eq!(
            format!("{error:#}"),
            "failed to run `/tmp`: Permission denied (os error 13)"
        );
    }

    #[test]
    fn missing_program_is_named() {
        let error = System.run(&Invocation::new(["no-such-program", "-x"])).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program` is not installed");
    }

    #[test]
    fn command_without_end_is_ended_with_all_that_it_started_and_named() {
        let marker = tempfile::NamedTempFile::new().unwrap();
        // The shell does not mind TERM, and its child holds the pipes.
        let script = format!(
            "trap '' TERM; sh -c 'echo $$ > {}; exec sleep 600'",
            marker.path().display()
        );
        let call = Invocation::new(["sh", "-c", &script]).within(Duration::from_secs(1));
        let error = System.run(&call).unwrap_err().to_string();
        assert!(error.ends_with("took longer than 1s, and was ended"), "{error}");
        let grandchild = std::fs::read_to_string(marker.path()).unwrap();
        let stat = format!("/proc/{}/stat", grandchild.trim());
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        // Dead, or a zombie that init has not seen yet.
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(tokio::time::Instant::now() < deadline, "the grandchild lives");
            std::thread::yield_now();
        }
    }

    #[test]
    fn output_without_end_is_cut_off() {
        let error = System.run(&Invocation::new(["cat", "/dev/zero"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`cat /dev/zero` printed more than 16777216 bytes, and was ended"
        );
        let noisy = "head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 3";
        match System.run(&Invocation::new(["sh", "-c", noisy])).unwrap_err() {
            CommandError::Failed { stderr, .. } => assert!(stderr.len() == 1 << 20, "{}", stderr.len()),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn command_that_leaves_its_pipes_to_others_is_not_waited_for() {
        let leaves = "sleep 600 & echo $!";
        let pid = System.run(&Invocation::new(["sh", "-c", leaves])).unwrap();
        System.run(&Invocation::new(["kill", pid.trim()])).unwrap();
    }
}
