//! The agent's unit, as systemd tells of it.

use std::time::Duration;

use crate::host::{CommandError, Host, Invocation};
use crate::part::Code;

/// systemd answers at once, unless it reads its units anew.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Words with which an agent that isn't ready begins, before the code of the cause in brackets (health/notify.rs).
const NOT_SERVING: &str = "not serving";

/// The agent at one look. A number is that of its process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Agent {
    /// The agent is not started yet, or being stopped.
    Absent,
    /// The agent has told systemd nothing yet.
    Silent(u32),
    /// The agent lives and is not ready.
    Waiting(u32),
    /// The agent does its part: it is ready, or nothing but the application keeps it from that.
    Serving(u32),
    /// The agent died, and is about to be started again.
    Dead,
    /// The agent ended, and is not started again.
    Failed,
}

/// State of the unit, as a look has seen it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) agent: Agent,
    /// The number of times that systemd started it again by itself.
    pub(super) restarts: u32,
    /// The agent's last words to systemd.
    pub(super) says: String,
}

/// Looks at the agent's unit. Blocks.
pub(super) fn look(host: &Host, unit: &str) -> Result<Seen, CommandError> {
    let properties = "--property=ActiveState,SubState,MainPID,NRestarts,StatusText";
    let call = Invocation::new(["systemctl", "show", properties, unit]).within(TIMEOUT);
    host.run(&call).map(|text| parse(&text))
}

/// Has systemd stop units, and waits for none. Blocks.
pub(super) fn stop(host: &Host, units: &[String]) {
    for unit in units {
        if let Err(error) = host.end_unit(unit) {
            tracing::warn!("{unit}, which only the newer version has, may run on: {error}");
        }
    }
}

/// Has systemd read its units, and end the agent that runs whatever it does. Envoy, the rules and the container stay, as after
/// a crash. Blocks.
pub(super) fn end(host: &Host, unit: &str) {
    if let Err(error) = host.run(&Invocation::new(["systemctl", "daemon-reload"])) {
        tracing::warn!("systemd has not read the units that are back: {error}");
    }
    let kill = Invocation::new(["systemctl", "kill", "--signal=KILL", unit]);
    if let Err(error) = host.run(&kill) {
        tracing::debug!("no agent to end: {error}");
    }
}

/// Has systemd start the installed agent. Waits for no start. Blocks.
pub(super) fn start(host: &Host, unit: &str) -> Result<(), CommandError> {
    host.run(&Invocation::new(["systemctl", "--no-block", "restart", unit]))
        .map(drop)
}

pub(super) fn parse(text: &str) -> Seen {
    let property = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default()
    };
    let number = |name| property(name).parse::<u32>().unwrap_or_default();
    let (pid, says) = (number("MainPID"), property("StatusText").to_owned());
    let agent = match (property("ActiveState"), property("SubState")) {
        ("active" | "reloading" | "activating", _) if pid != 0 && is_the_applications(&says) => Agent::Serving(pid),
        // systemd is told once that an agent is ready; whether it still is, its words say.
        ("active" | "reloading", _) if says.starts_with(NOT_SERVING) => Agent::Waiting(pid),
        ("active" | "reloading", _) => Agent::Serving(pid),
        ("activating", "start") if pid != 0 => match says.is_empty() {
            true => Agent::Silent(pid),
            false => Agent::Waiting(pid),
        },
        ("activating", "auto-restart" | "auto-restart-queued") => Agent::Dead,
        ("failed", _) => Agent::Failed,
        _ => Agent::Absent,
    };
    Seen {
        agent,
        restarts: number("NRestarts"),
        says,
    }
}

/// True when the cause, of which an agent speaks that is not ready, is in the application.
fn is_the_applications(says: &str) -> bool {
    let cause = says.strip_prefix(NOT_SERVING).and_then(|rest| rest.strip_prefix(" ["));
    let code = cause.and_then(|cause| cause.split_once(']'));
    code.and_then(|(code, _)| Code::named(code))
        .is_some_and(Code::is_the_applications)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemds_words_are_read() {
        for (active, sub, pid, says, agent) in [
            ("inactive", "dead", 0, "", Agent::Absent),
            ("activating", "start-pre", 0, "", Agent::Absent),
            ("activating", "start", 7, "", Agent::Silent(7)),
            ("activating", "start", 7, "not serving: a=b", Agent::Waiting(7)),
            (
                "active",
                "running",
                7,
                "not serving [envoy-down]: it is",
                Agent::Waiting(7),
            ),
            (
                "active",
                "running",
                7,
                "not serving [of-tomorrow]: x",
                Agent::Waiting(7),
            ),
            ("active", "running", 7, "serving [probe-failing]: x", Agent::Serving(7)),
            (
                "active",
                "running",
                7,
                "not serving [probe-failing]: x",
                Agent::Serving(7),
            ),
            (
                "activating",
                "start",
                7,
                "not serving [container-failed]: x",
                Agent::Serving(7),
            ),
            ("active", "running", 7, "serving", Agent::Serving(7)),
            ("deactivating", "stop-sigterm", 7, "stopping", Agent::Absent),
            ("activating", "auto-restart", 0, "stopping", Agent::Dead),
            ("failed", "failed", 0, "the key is wrong", Agent::Failed),
        ] {
            let text = format!("MainPID={pid}\nNRestarts=2\nStatusText={says}\nActiveState={active}\nSubState={sub}\n");
            let says = says.to_owned();
            assert_eq!(
                parse(&text),
                Seen {
                    agent,
                    restarts: 2,
                    says
                },
                "{text}"
            );
        }
        assert_eq!(parse("").agent, Agent::Absent);
    }
}
