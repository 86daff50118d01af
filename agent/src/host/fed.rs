//! A program that stays for as long as its input is open.

use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::{Host, Invocation};

/// Fed line by line; ends when this is dropped, and when this process ends in whatever way.
#[derive(Debug)]
pub struct Fed {
    child: Child,
    input: Option<ChildStdin>,
}

impl Host {
    /// Starts a program that reads commands from its stdin; what it prints is nobody's.
    pub fn feed(&self, call: &Invocation) -> io::Result<Fed> {
        let argv = self.runner.argv(call);
        let (program, arguments) = argv
            .split_first()
            .ok_or_else(|| io::Error::other("there is no program to start"))?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", super::command::PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let input = child.stdin.take();
        Ok(Fed { child, input })
    }
}

impl Fed {
    /// Hands the program a line.
    pub fn send(&mut self, line: &str) -> io::Result<()> {
        let input = self.input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write_all(line.as_bytes())?;
        input.write_all(b"\n")
    }

    /// Tells whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        drop(self.input.take());
        // It is on its way out by itself; this is for one that hangs.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
