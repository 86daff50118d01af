//! Short-lived commands: argv and stdin in, stdout out, stderr in the error.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::process::geteuid;

use super::Owner;

/// A command and its stdin.
#[derive(Clone, Eq, PartialEq)]
pub struct Invocation {
    /// Program and arguments. Never a secret.
    pub argv: Vec<String>,
    /// What it reads.
    pub stdin: String,
    /// Variables beside PATH and LC_ALL; their values may be secrets.
    pub env: Vec<(String, String)>,
    /// Who runs it; absent: the caller.
    pub user: Option<Owner>,
}

impl Invocation {
    /// A command with empty stdin.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            stdin: String::new(),
            env: Vec::new(),
            user: None,
        }
    }

    /// The same command, reading `text`.
    pub fn with_stdin(mut self, text: impl Into<String>) -> Self {
        self.stdin = text.into();
        self
    }

    /// The same command as another user's, of no other group and with no right of root's. A caller that isn't root runs it
    /// as itself.
    pub fn as_user(mut self, user: Owner) -> Self {
        self.user = geteuid().is_root().then_some(user);
        self
    }

    /// The same command, with these variables too.
    pub fn with_env(mut self, env: Vec<(String, String)>) -> Self {
        self.env = env;
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
    /// It ran and said no.
    #[error("`{call}` failed ({status}): {stderr}")]
    Failed {
        /// What was run.
        call: Box<Invocation>,
        /// `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
        /// What it said, trimmed.
        stderr: String,
    },
    /// It isn't installed.
    #[error("`{}` is not installed", call.argv.first().map_or("", String::as_str))]
    NotFound {
        /// What was to be run.
        call: Box<Invocation>,
    },
    /// It could not be started or talked to.
    #[error("failed to run `{call}`: {source}")]
    Io {
        /// What was to be run.
        call: Box<Invocation>,
        /// Why.
        source: io::Error,
    },
}

/// Runs short-lived commands; blocks.
pub trait Run: fmt::Debug + Send + Sync {
    /// Runs to completion and returns stdout.
    fn run(&self, call: &Invocation) -> Result<String, CommandError>;
}

/// Real processes, with a minimal environment.
#[derive(Clone, Copy, Debug)]
pub struct System;

impl Run for System {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        execute(call).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => CommandError::NotFound {
                call: Box::new(call.clone()),
            },
            _ => CommandError::Io {
                call: Box::new(call.clone()),
                source,
            },
        })?
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that starts short-lived commands"
)]
fn execute(call: &Invocation) -> io::Result<Result<String, CommandError>> {
    let (program, arguments) = call.argv.split_first().ok_or_else(|| io::Error::other("empty argv"))?;
    let mut command = Command::new(program);
    if let Some(Owner { uid, gid }) = call.user {
        // Drops the supplementary groups too.
        command.uid(uid).gid(gid).current_dir("/");
    }
    let mut child = command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .envs(call.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdin = child.stdin.take();
    let output = std::thread::scope(|scope| {
        // Beside the reading: a child that fills its stdout before it has read all would stop us both.
        // A child that ends without reading is judged by its status.
        scope.spawn(move || stdin.map(|mut pipe| pipe.write_all(call.stdin.as_bytes())));
        child.wait_with_output()
    })?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    Ok(Err(CommandError::Failed {
        call: Box::new(call.clone()),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stdin_goes_in_and_stdout_comes_out() {
        let text = "x".repeat(1 << 20);
        assert_eq!(
            System.run(&Invocation::new(["cat"]).with_stdin(text.clone())).unwrap(),
            text
        );
    }

    #[test]
    fn a_failure_carries_what_the_command_said() {
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
    fn another_user_s_command_has_nothing_of_root_s() {
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
    fn a_missing_program_is_named() {
        let error = System.run(&Invocation::new(["no-such-program", "-x"])).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program` is not installed");
    }
}
