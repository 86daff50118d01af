//! The unit of the application, as systemd tells of it.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::host::{CommandError, Host, Invocation};

/// The longest time in which systemd takes an order that it carries out later.
const ORDER_LIMIT: Duration = Duration::from_secs(5);
/// The longest wait for a unit's end once its processes were killed.
const KILLED_LIMIT: Duration = Duration::from_secs(5);
/// The longest time that a start and a stop take beside the time that the stop is given, at the most.
pub(super) const OVERHEAD: Duration = Duration::from_secs(15);

/// Properties that are asked for (org.freedesktop.systemd1(5)).
const PROPERTIES: [&str; 10] = [
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "MainPID",
    "Result",
    "ExecMainStatus",
    "Before",
    "After",
    "Job",
];

/// A unit at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Unit {
    /// `loaded`, `not-found`, `masked`, `bad-setting`, …
    pub(super) load: String,
    /// `enabled`, `disabled`, `static`, …; empty for one that isn't there.
    pub(super) file: String,
    active: String,
    sub: String,
    pid: u32,
    /// The end of its last process, such as `exit-code`.
    result: String,
    status: String,
    /// Units that start after it, and stop before it.
    before: String,
    /// Units that it starts after.
    after: String,
    /// The job that is queued for it; empty or 0: none.
    job: String,
}

/// State of a unit, by what is to be done about it.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum UnitState {
    /// The service serves, by this process; 0: by none that systemd calls the main one.
    Serves(u32),
    /// systemd is at work on it, or is about to start it again.
    Changes(String),
    /// Nothing runs; the reason when that is an end.
    Ended(Option<String>),
}

impl Unit {
    /// Asks systemd. Fails where none runs. Blocks.
    pub(super) fn look(host: &Host, name: &str) -> Result<Self> {
        let properties = format!("--property={}", PROPERTIES.join(","));
        let said = host.run(&Invocation::new(["systemctl", "show", &properties, name]));
        let said = said.with_context(|| format!("failed to ask systemd about {name}"))?;
        Ok(Self::parse(&said))
    }

    /// Reads `NAME=value` lines; what isn't there is empty.
    pub(super) fn parse(said: &str) -> Self {
        let value = |name: &str| {
            let mut pairs = said.lines().filter_map(|line| line.split_once('='));
            pairs
                .find(|(key, _)| *key == name)
                .map_or("", |(_, value)| value)
                .trim()
        };
        let text = |name: &str| value(name).to_owned();
        Self {
            load: text("LoadState"),
            file: text("UnitFileState"),
            active: text("ActiveState"),
            sub: text("SubState"),
            pid: value("MainPID").parse().unwrap_or_default(),
            result: text("Result"),
            status: text("ExecMainStatus"),
            before: text("Before"),
            after: text("After"),
            job: text("Job"),
        }
    }

    /// State of the unit, by what is to be done about it.
    pub(super) fn state(&self) -> UnitState {
        match self.active.as_str() {
            "active" | "reloading" | "refreshing" => UnitState::Serves(self.pid),
            // A start that waits for other units has not changed its state yet.
            state @ ("inactive" | "failed") if !matches!(self.job.as_str(), "" | "0") => {
                UnitState::Changes(format!("{state}, with a job queued"))
            }
            "inactive" | "failed" => UnitState::Ended(match self.result.as_str() {
                "" | "success" => None,
                "exit-code" => Some(format!("exited with status {}", self.status)),
                "oom-kill" => Some("was killed by the kernel for want of memory".to_owned()),
                "signal" | "core-dump" => Some(format!("was ended by signal {}", self.status)),
                other => Some(format!("ended: {other}")),
            }),
            // While it waits for its own Restart= it is `activating` too.
            other if self.sub.is_empty() => UnitState::Changes(other.to_owned()),
            other => UnitState::Changes(format!("{other} ({})", self.sub)),
        }
    }

    /// True when it starts after `unit`.
    pub(super) fn is_after(&self, unit: &str) -> bool {
        self.after.split_whitespace().any(|name| name == unit)
    }

    /// True when it stops after `unit`.
    pub(super) fn stops_after(&self, unit: &str) -> bool {
        self.before.split_whitespace().any(|name| name == unit)
    }

    /// True when systemd starts it without the agent.
    pub(super) fn starts_by_itself(&self) -> bool {
        matches!(self.file.as_str(), "enabled" | "enabled-runtime")
    }

    /// Fails when systemd can't start it, with what to do.
    pub(super) fn expect_startable(&self, name: &str) -> Result<()> {
        match self.load.as_str() {
            "loaded" => Ok(()),
            "not-found" => bail!("{name} is not there: install it, or name another one in workload.service.unit"),
            "masked" => bail!("{name} is masked, so that nobody can start it: `systemctl unmask {name}`"),
            other => bail!("systemd can't read {name} ({other}): `systemctl status {name}` says why"),
        }
    }
}

/// Has systemd start it, which may take long: how it goes, the unit tells. Blocks until systemd has the order.
pub(super) fn start(host: &Host, name: &str) -> Result<()> {
    let order = Invocation::new(["systemctl", "start", "--no-block", name]);
    host.run(&order.within(ORDER_LIMIT))
        .with_context(|| format!("failed to start {name} (see `journalctl --unit {name}`)"))?;
    Ok(())
}

/// Has systemd stop it, and kills it when it has not ended within `limit`: an application that goes on by its own
/// TimeoutStopSec= would listen outside of the mesh. Blocks.
///
/// # Errors
/// When systemd does not do it, or the unit outlives even that.
pub(super) fn stop(host: &Host, name: &str, limit: Duration) -> Result<()> {
    match ended(host, name, limit) {
        Err(CommandError::Unbounded { .. }) => {
            tracing::warn!(unit = name, "the service did not end within {limit:?}, and is killed");
            let kill = Invocation::new(["systemctl", "kill", "--signal=KILL", name]).within(ORDER_LIMIT);
            // systemd refuses where no process is left, and so what counts is the end.
            if let Err(error) = host.run(&kill) {
                tracing::warn!(unit = name, "{error}");
            }
            ended(host, name, KILLED_LIMIT)
        }
        other => other,
    }
    .with_context(|| format!("failed to stop {name}"))
}

/// Orders its stop and waits for that.
///
/// Its order with other units doesn't count: one that is to stop after the agent, as it should at a shutdown, would wait
/// for the very agent that waits for it.
fn ended(host: &Host, name: &str, limit: Duration) -> Result<(), CommandError> {
    let call = Invocation::new(["systemctl", "stop", "--job-mode=ignore-dependencies", name]);
    host.run(&call.within(limit)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_is_judged_by_what_systemd_says() {
        let changes = |text: &str| UnitState::Changes(text.to_owned());
        let ended = |text: &str| UnitState::Ended(Some(text.to_owned()));
        for (said, state) in [
            (
                "ActiveState=active\nSubState=running\nMainPID=7\n",
                UnitState::Serves(7),
            ),
            (
                "ActiveState=reloading\nSubState=reload\nMainPID=7\n",
                UnitState::Serves(7),
            ),
            // Type=oneshot with RemainAfterExit=.
            ("ActiveState=active\nSubState=exited\nMainPID=0\n", UnitState::Serves(0)),
            (
                "ActiveState=activating\nSubState=auto-restart\n",
                changes("activating (auto-restart)"),
            ),
            ("ActiveState=deactivating\n", changes("deactivating")),
            ("ActiveState=inactive\nResult=success\n", UnitState::Ended(None)),
            (
                "ActiveState=inactive\nResult=success\nJob=42\n",
                changes("inactive, with a job queued"),
            ),
            (
                "ActiveState=failed\nResult=exit-code\nExecMainStatus=3\n",
                ended("exited with status 3"),
            ),
            (
                "ActiveState=failed\nResult=signal\nExecMainStatus=9\n",
                ended("was ended by signal 9"),
            ),
            (
                "ActiveState=failed\nResult=start-limit-hit\n",
                ended("ended: start-limit-hit"),
            ),
        ] {
            assert_eq!(Unit::parse(said).state(), state, "{said}");
        }
    }

    #[test]
    fn unit_that_nobody_can_start_is_named_with_a_remedy() {
        let refused = |load: &str| {
            let unit = Unit::parse(&format!("LoadState={load}\n"));
            unit.expect_startable("a.service").map_err(|error| error.to_string())
        };
        assert_eq!(refused("loaded"), Ok(()));
        for (load, remedy) in [
            ("not-found", "workload.service.unit"),
            ("masked", "systemctl unmask a.service"),
            ("bad-setting", "systemctl status a.service"),
        ] {
            assert!(refused(load).unwrap_err().contains(remedy), "{load}");
        }
    }
}
