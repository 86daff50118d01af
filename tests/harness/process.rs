//! Programs that the harness starts: each in its own process group, its output in a file, killed by pid on drop.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::eventually;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
}

impl Process {
    /// Starts `command`; stdout and stderr go to `folder/name.log`, after what an earlier one of that name wrote.
    pub fn spawn(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let output = folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&output)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
        })
    }

    /// Pid of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Output of the process so far.
    pub fn output(&self) -> String {
        fs::read(&self.output).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Bytes that it has written so far.
    pub fn output_length(&self) -> Result<u64> {
        Ok(fs::metadata(&self.output)?.len())
    }

    /// Output of the process after so many bytes.
    pub fn output_after(&self, length: u64) -> Result<String> {
        let mut file = File::open(&self.output)?;
        file.seek(SeekFrom::Start(length))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Sends a signal to the program, not to its group.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.as_pid()?, signal).with_context(|| format!("failed to signal {}", self.name))
    }

    /// Kills it and waits; what it started itself lives on.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let Self { name, child, output } = self;
        eventually(format!("the end of {name}"), deadline, || {
            child.try_wait()?.context("still runs")
        })
        .map_err(|error| error.context(tail(output)))
    }

    /// An error once it has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, tail(&self.output)),
        }
    }

    fn as_pid(&self) -> Result<Pid> {
        i32::try_from(self.pid())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| anyhow!("{} has no pid", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let (Ok(None), Ok(pid)) = (self.child.try_wait(), self.as_pid()) {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Bytes of a process in memory: all of it by `VmRSS`, what no file backs by `RssAnon`.
pub fn resident(pid: u32, which: &str) -> Result<u64> {
    let file = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&file).with_context(|| file.clone())?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(which)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("{file} has no {which}"))? * 1024)
}

/// Processor time that the threads of a process have had, also in the kernel, in seconds.
pub fn processor_time(pid: u32) -> Result<f64> {
    processor_time_of(pid, |_| true)
}

/// The same of this process's threads of that name; nothing where there is none.
pub fn processor_time_of_thread(name: &str) -> Result<f64> {
    processor_time_of(std::process::id(), |thread| {
        fs::read_to_string(thread.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
}

fn processor_time_of(pid: u32, counts: impl Fn(&Path) -> bool) -> Result<f64> {
    let folder = format!("/proc/{pid}/task");
    let mut nanoseconds = 0;
    for thread in fs::read_dir(&folder).with_context(|| folder.clone())? {
        let thread = thread?.path();
        if counts(&thread) {
            let file = thread.join("schedstat");
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
            nanoseconds += first.with_context(|| format!("{}: {text}", file.display()))?;
        }
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Runs a command to its end; its stdout, or an error with its stderr.
pub fn output_of(mut command: Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last lines of a log.
pub fn tail(path: &Path) -> String {
    const LINES: usize = 60;
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    // Lines of the access log would leave no room for any other.
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("envoy::access")).collect();
    let from = lines.len().saturating_sub(LINES);
    format!("--- {}\n{}", path.display(), lines[from..].join("\n"))
}
