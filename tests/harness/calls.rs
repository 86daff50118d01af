//! Calls to a product catalogue, made by `load` inside a namespace, and what came of them.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::docker::Docker;
use crate::network::{EtcView, Host, Network};
use crate::process::Process;
use crate::{PATIENCE, eventually, programs};

/// One call.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Call {
    /// Seconds after the first.
    pub at: f64,
    /// Seconds until its end.
    pub took: f64,
    /// gRPC's name of the result: `Ok`, `Unavailable`.
    pub code: String,
    /// The error's words.
    pub message: String,
    /// Caller as the server saw it, in Envoy's words; none: the call came past Envoy, or in plaintext.
    pub caller: Option<String>,
}

impl Call {
    /// True when the call was answered.
    pub fn is_ok(&self) -> bool {
        self.code == "Ok"
    }
}

/// A target and the number of calls to it.
#[derive(Clone, Debug)]
pub struct Load {
    /// host:port.
    pub target: String,
    /// The name that is called; `None`: the target.
    pub authority: Option<String>,
    /// Calls a second.
    pub rate: u32,
    /// Calls in all.
    pub count: u32,
    /// The product asked for; `slow-MILLISECONDS` takes that long.
    pub product: String,
    /// Calls at a time; `None`: as many as come together.
    pub parallel: Option<usize>,
    /// Each call on a connection of its own.
    pub reconnect: bool,
    /// Time that a call may take.
    pub deadline: Duration,
}

impl Load {
    /// 200 calls in a second.
    pub fn on(target: impl Into<String>) -> Self {
        Self {
            target: target.into(),
            authority: None,
            rate: 200,
            count: 200,
            product: "OLJCESPC7Z".to_owned(),
            parallel: None,
            reconnect: false,
            deadline: Duration::from_secs(5),
        }
    }

    /// So many calls a second for so long.
    #[must_use]
    pub fn at_rate(self, rate: u32, duration: Duration) -> Self {
        let count = (f64::from(rate) * duration.as_secs_f64()) as u32;
        Self { rate, count, ..self }
    }

    /// So many calls a second until [`Calling::stop`].
    #[must_use]
    pub fn until_stopped(self, rate: u32) -> Self {
        // More than the longest case takes.
        self.at_rate(rate, Duration::from_secs(600))
    }

    /// So many calls, as fast as they are answered, `parallel` at a time.
    #[must_use]
    pub fn as_fast_as_answered(self, count: u32, parallel: usize) -> Self {
        // The clock's finest: never waited for.
        let rate = 1_000_000;
        Self {
            rate,
            count,
            parallel: Some(parallel),
            ..self
        }
    }

    /// Makes the calls from `host` and waits for the last one.
    pub fn run(&self, network: &Network, from: Host) -> Result<Calls> {
        self.start(network, from)?.finish()
    }

    /// Begins to make the calls from `host`.
    pub fn start(&self, network: &Network, from: Host) -> Result<Calling> {
        let command = network.command(from, EtcView::Plain, programs::load()?);
        self.start_by(network, command, &from.to_string())
    }

    /// Makes the calls from a container, by its resolver, and waits for the last one.
    pub fn run_in(&self, network: &Network, docker: &Docker, container: &str) -> Result<Calls> {
        let command = docker.beside(container, &programs::load()?)?;
        self.start_by(network, command, container)?.finish()
    }

    fn start_by(&self, network: &Network, mut command: Command, from: &str) -> Result<Calling> {
        command.args(["--target", &self.target, "--product", &self.product]);
        command.args(["--rate", &self.rate.to_string(), "--count", &self.count.to_string()]);
        command.args(["--deadline", &self.deadline.as_millis().to_string()]);
        command.args(
            self.parallel
                .iter()
                .flat_map(|count| ["--parallel".to_owned(), count.to_string()]),
        );
        command.args(self.reconnect.then_some("--reconnect"));
        command.args(self.authority.iter().flat_map(|name| ["--authority", name]));
        let name = format!("load-{}@{from}", programs::next_number());
        let longest = Duration::from_secs(u64::from(self.count / self.rate)) + self.deadline + PATIENCE;
        Ok(Calling {
            process: Process::spawn(&name, command, network.folder())?,
            count: self.count,
            longest,
        })
    }
}

/// Calls that are being made.
#[derive(Debug)]
pub struct Calling {
    process: Process,
    count: u32,
    longest: Duration,
}

impl Calling {
    /// The calls that have ended so far.
    pub fn so_far(&self) -> Calls {
        let lines = self.process.output();
        Calls(
            lines
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
        )
    }

    /// Until calls have been made for so many seconds, as counted from the first: the calls are the clock of a case.
    pub fn wait_for(&self, seconds: f64) -> Result<()> {
        let longest = Duration::from_secs_f64(seconds) + PATIENCE;
        eventually(format!("{seconds} s of calls"), longest, || {
            let so_far = self.so_far().last();
            ensure!(so_far >= seconds, "{so_far} s so far");
            Ok(())
        })
    }

    /// Makes them for a second more, in which what was done last shows, and waits for all of them.
    pub fn stop(mut self) -> Result<Calls> {
        self.wait_for(self.so_far().last() + 1.0)?;
        self.process.signal(Signal::TERM)?;
        self.ended()
    }

    /// Waits for the last one.
    pub fn finish(mut self) -> Result<Calls> {
        let calls = self.ended()?;
        let made = calls.0.len();
        ensure!(made == self.count as usize, "load made {made} calls of {}", self.count);
        Ok(calls)
    }

    fn ended(&mut self) -> Result<Calls> {
        let status = self.process.wait(self.longest)?;
        ensure!(status.success(), "load: {status}: {}", self.process.output());
        let mut calls = self.so_far();
        calls.0.sort_by(|a, b| a.at.total_cmp(&b.at));
        Ok(calls)
    }
}

/// Calls that were made.
#[derive(Clone, Debug)]
pub struct Calls(pub Vec<Call>);

impl Calls {
    /// Calls that were answered.
    pub fn answered(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(|call| call.is_ok())
    }

    /// Calls that were not answered.
    pub fn failed(&self) -> impl Iterator<Item = &Call> {
        self.0.iter().filter(|call| !call.is_ok())
    }

    /// When the last one began, in seconds.
    pub fn last(&self) -> f64 {
        self.0.iter().map(|call| call.at).fold(0.0, f64::max)
    }

    /// An error that lists the failures, if there is one.
    pub fn expect_all_answered(&self) -> Result<()> {
        ensure!(self.failed().next().is_none(), "{self}");
        Ok(())
    }

    /// An error unless the server saw `spiffe_id` call every time.
    pub fn expect_caller(&self, spiffe_id: &str) -> Result<()> {
        for call in self.answered() {
            let caller = call
                .caller
                .as_deref()
                .context("a call came without a client certificate")?;
            ensure!(
                caller.contains(&format!("URI={spiffe_id}")),
                "the server saw {caller}, not {spiffe_id}"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} calls answered", self.answered().count(), self.0.len())?;
        let mut kinds: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
        for call in self.failed() {
            kinds.entry((&call.code, &call.message)).or_default().push(call.at);
        }
        for ((code, message), at) in kinds {
            let (first, last) = (at.first().unwrap_or(&0.0), at.last().unwrap_or(&0.0));
            write!(
                f,
                "\n  {} × {code} from {first:.2} s to {last:.2} s: {message}",
                at.len()
            )?;
        }
        Ok(())
    }
}
