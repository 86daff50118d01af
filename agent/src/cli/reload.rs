//! `reload`: has the running agent take up the configuration, and says whether it did (what the unit runs).
//!
//! The configuration is judged here first, so that `systemctl reload` fails with the reason and the agent goes on
//! as it was. The agent then hands over to itself: what holds across a restart holds across a reload.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::configuration::{moved, of_agent, prepare};
use super::{Outcome, Output, print};
use crate::config::{Config, ConfigError};
use crate::facts::{EnvoyState, Health};
use crate::host::Host;
use crate::part::Code;
use crate::status::{Agent, BUSY_TIMEOUT, Status, ask};

/// Version of the JSON document: it changes when a key goes or means something else.
const VERSION: u32 = 1;
/// Longest time until the agent serves again; a new image may have to be pulled.
const SERVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that a cause outside this VM, or one beside which it serves, must have stood: a single refused connection may be
/// over at the next try, and a part that has just begun knows nothing yet.
const STANDS: Duration = Duration::from_secs(3);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

/// The end of the wait for an agent.
#[derive(Debug, Eq, PartialEq)]
enum End {
    /// The agent has the configuration on and serves with it.
    Serves,
    /// The agent has the configuration on and doesn't serve yet.
    Unready(Health),
    /// The agent leaves the mesh, with the configuration that it has, for this reason.
    Leaves(String),
    /// The agent was not seen with the configuration on.
    Unseen,
}

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    let host = Host::system();
    let found = match prepare(path, &host).await {
        Ok((found, _)) => found,
        Err(error) => {
            if error.is::<ConfigError>() {
                tell_agent(path, &host).await;
            }
            return Err(error);
        }
    };
    let socket = found.config.paths.status_socket();
    let before = ask(&socket, BUSY_TIMEOUT).await;
    let Some((_, since)) = before.as_ref().ok().and_then(turn) else {
        let reason = before.as_ref().err().map_or("it is no agent", String::as_str);
        return Err(elsewhere(&host, path, &found.config)
            .unwrap_or_else(|| anyhow!("no agent takes the configuration up at {}: {reason}", socket.display())));
    };
    signal(&host, path, before.as_ref().ok())?;
    let known = before.map(|status| status.health.codes).unwrap_or_default();
    let end = follow(async || ask(&socket, BUSY_TIMEOUT).await.ok(), since, &known).await;
    let report = report(end)?;
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Text => report.text(),
    })
}

/// Why the agent of this network, which doesn't answer where the configuration has it, can't take that up; `None`:
/// there is none.
fn elsewhere(host: &Host, path: &Path, config: &Config) -> Option<anyhow::Error> {
    let pid = host.network_holder()?;
    let own = expect_own(host, path, pid);
    Some(own.err().unwrap_or_else(|| moved(config).into()))
}

/// Has the agent judge the configuration too, which it refuses: its `status` then says so to whoever looks later.
async fn tell_agent(path: &Path, host: &Host) {
    let paths = Config::paths_of(path).unwrap_or_default();
    let agent = ask(&paths.status_socket(), BUSY_TIMEOUT).await;
    if let Err(error) = signal(host, path, agent.as_ref().ok()) {
        tracing::debug!("no agent is told: {error:#}");
    }
}

/// Sends SIGHUP to the agent that a status is of. The agent then reads the configuration that it was started with, and
/// so is told nothing about another one.
fn signal(host: &Host, path: &Path, status: Option<&Status>) -> Result<()> {
    let (pid, _) = status.and_then(turn).context("there is no agent")?;
    expect_own(host, path, pid)?;
    let process = i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw)
        .context("status names no pid")?;
    kill(process, Signal::SIGHUP).with_context(|| format!("failed to signal the agent, pid {pid}"))
}

/// Fails where the agent is seen to have been started with another configuration.
fn expect_own(host: &Host, path: &Path, pid: u32) -> Result<()> {
    match of_agent(host, pid) {
        Some(own) if host.resolved(&own) != host.resolved(path) => bail!(
            "the agent that runs, pid {pid}, has another configuration than {}, and takes up no other while it runs: \
             `istio-vm-agent reload --config {}`",
            path.display(),
            own.display()
        ),
        _ => Ok(()),
    }
}

/// A configuration that was taken up, for programs.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    taken_up: bool,
    ready: bool,
    /// Absent when the agent is ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<Cause>,
}

/// A cause that keeps the VM from serving.
#[derive(Debug, Serialize)]
struct Cause {
    /// As `status` has it; absent while another Envoy takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    problem: String,
}

/// A configuration that was taken up is no failure, whatever keeps the VM from serving.
fn report(end: End) -> Result<Report> {
    match end {
        End::Serves => Ok(Report::of(None)),
        End::Unready(Health { problems, codes, .. }) => {
            let problem = problems.into_iter().next();
            Ok(Report::of(Some(Cause {
                code: codes.into_iter().next(),
                problem: problem.unwrap_or_else(|| "another Envoy takes over still".to_owned()),
            })))
        }
        End::Leaves(reason) => Err(anyhow!(
            "the agent takes up no configuration any more: {reason}; once it has ended, a start takes up that of then"
        )),
        End::Unseen => Err(anyhow!(
            "the agent did not take the configuration up within {SERVE_TIMEOUT:?}: `istio-vm-agent status` and its log say why"
        )),
    }
}

impl Report {
    fn of(cause: Option<Cause>) -> Self {
        Self {
            version: VERSION,
            taken_up: true,
            ready: cause.is_none(),
            cause,
        }
    }

    fn text(&self) -> String {
        match &self.cause {
            None => "taken up\n".to_owned(),
            Some(Cause { problem, .. }) => format!(
                "taken up, not ready because {problem}\n`istio-vm-agent status --wait ready` waits until it is\n"
            ),
        }
    }
}

/// The agent whose turn it is: its pid, and since when it runs.
fn turn(status: &Status) -> Option<(u32, SystemTime)> {
    match &status.agent {
        Agent::Running { pid, since, .. } | Agent::Joining { pid, since, .. } => Some((*pid, *since)),
        Agent::NotAnswering { .. } => None,
    }
}

/// Looks until the agent serves with the configuration and nothing is amiss but what was `known` before, or it is known that it
/// won't soon.
async fn follow(look: impl AsyncFn() -> Option<Status>, before: SystemTime, known: &[String]) -> End {
    let start = Instant::now();
    let (mut end, mut since) = (End::Unseen, None);
    loop {
        let seen = look().await;
        if let Some(reason) = seen.as_ref().and_then(leaves) {
            return End::Leaves(reason);
        }
        if let Some(status) = seen.filter(|status| turn(status).is_some_and(|(_, since)| since != before)) {
            let serves = status.health.ready && !is_taken_over(&status);
            if serves && status.health.codes.iter().all(|code| known.contains(code)) {
                return End::Serves;
            }
            let may_stand = serves || is_outside(&status.health);
            since = may_stand.then(|| since.unwrap_or_else(Instant::now));
            end = match serves {
                true => End::Serves,
                false => End::Unready(status.health),
            };
        }
        let stood = since.map_or(Duration::ZERO, |since| since.elapsed());
        if stood >= STANDS || start.elapsed() >= SERVE_TIMEOUT {
            return end;
        }
        sleep(POLL).await;
    }
}

/// The reason of an agent that is on its way out.
fn leaves(status: &Status) -> Option<String> {
    let Health { codes, problems, .. } = &status.health;
    let place = codes.iter().position(|code| code == Code::Leaving.name())?;
    problems.get(place).cloned()
}

/// True when the cause is not on this VM: a certificate is missing for as long as the CA doesn't give one.
fn is_outside(health: &Health) -> bool {
    let cause = health.codes.first().and_then(|code| Code::named(code));
    matches!(
        cause,
        Some(Code::IstiodUnreachable | Code::JoinSource | Code::CertificateMissing)
    )
}

/// True while the Envoy that serves is to make way for another.
fn is_taken_over(status: &Status) -> bool {
    let envoy = status.section::<EnvoyState>("envoy");
    envoy.is_some_and(|envoy| envoy.successor().is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::host::System;

    const BEFORE: SystemTime = SystemTime::UNIX_EPOCH;

    fn status(since: SystemTime, ready: bool, code: Code) -> Status {
        let problem = (!ready).then(|| format!("{} it is", code.name()));
        Status {
            agent: Agent::Running {
                version: String::new(),
                pid: 7,
                since,
                process_since: None,
                node: String::new(),
                control_plane: String::new(),
            },
            health: Health {
                ready,
                problems: problem.into_iter().collect(),
                codes: vec![code.name().to_owned()],
                remedy: None,
            },
            ..Status::default()
        }
    }

    /// The end, and how long it took.
    async fn ended(status: Option<Status>) -> (End, Duration) {
        let start = Instant::now();
        let known = [Code::HostsFile.name().to_owned()];
        let end = follow(async || status.clone(), BEFORE, &known).await;
        (end, start.elapsed())
    }

    fn after() -> SystemTime {
        BEFORE + Duration::from_secs(1)
    }

    #[test]
    fn agent_is_told_of_no_configuration_but_its_own() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        std::fs::create_dir_all(root.path().join("proc/7")).unwrap();
        std::fs::write(root.path().join("proc/7/cmdline"), "a\0run\0--config\0/srv/a.toml\0").unwrap();
        expect_own(&host, Path::new("/srv/a.toml"), 7).unwrap();
        let error = expect_own(&host, Path::new("/srv/b.toml"), 7).unwrap_err().to_string();
        assert!(
            error.ends_with("`istio-vm-agent reload --config /srv/a.toml`"),
            "{error}"
        );
    }

    #[test]
    fn directories_that_have_moved_are_the_reason_why_no_agent_answers() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let text = "[join]\ndirectory = { path = '/b' }\n[paths]\nrun = '/run/other'\n";
        let config = Config::parse(Path::new("/srv/a.toml"), text).unwrap();
        let said = |path: &str| elsewhere(&host, Path::new(path), &config).map(|error| error.to_string());
        assert_eq!(said("/srv/a.toml"), None);
        let _agent = host.lock_network().unwrap();
        let folder = root.path().join(format!("proc/{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("cmdline"), "a\0run\0--config\0/srv/a.toml\0").unwrap();
        let moved = said("/srv/a.toml").unwrap();
        assert!(
            moved.starts_with("/srv/a.toml:3:2: paths: can't change while"),
            "{moved}"
        );
        assert!(said("/srv/b.toml").unwrap().contains("has another configuration"));
    }

    #[tokio::test(start_paused = true)]
    async fn reload_that_was_taken_up_is_no_failure_and_told_with_its_cause() {
        let (end, _) = ended(Some(status(after(), true, Code::HostsFile))).await;
        assert_eq!(report(end).unwrap().text(), "taken up\n");
        let (end, took) = ended(Some(status(after(), false, Code::EnvoyDown))).await;
        assert!(took >= SERVE_TIMEOUT);
        let unready = report(end).unwrap();
        let told = unready.text();
        assert!(
            told.starts_with("taken up, not ready because envoy-down it is\n"),
            "{told}"
        );
        let cause = json!({ "code": "envoy-down", "problem": "envoy-down it is" });
        assert_eq!(
            serde_json::to_value(unready).unwrap(),
            json!({ "version": 1, "taken_up": true, "ready": false, "cause": cause })
        );
        for unseen in [None, Some(status(BEFORE, true, Code::HostsFile))] {
            let (end, _) = ended(unseen).await;
            assert!(report(end).unwrap_err().to_string().contains("did not take"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reload_waits_for_the_first_whole_verdict_of_an_agent_that_serves() {
        let (end, took) = ended(Some(status(after(), true, Code::HostsFile))).await;
        assert!(end == End::Serves && took < POLL, "{took:?}");
        let (end, took) = ended(Some(status(after(), true, Code::IstiodPending))).await;
        assert!(end == End::Serves && took >= STANDS, "{took:?}");
        let settles = std::cell::Cell::new(0);
        let look = async || {
            settles.set(settles.get() + 1);
            let code = [Code::IstiodPending, Code::HostsFile][usize::from(settles.get() > 3)];
            Some(status(after(), true, code))
        };
        let end = follow(look, BEFORE, &[Code::HostsFile.name().to_owned()]).await;
        assert_eq!((end, settles.get()), (End::Serves, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn reload_is_refused_at_once_by_an_agent_that_leaves() {
        let (end, took) = ended(Some(status(BEFORE, false, Code::Leaving))).await;
        assert!(took < POLL, "{took:?}");
        let told = report(end).unwrap_err().to_string();
        assert!(told.contains("any more: leaving it is; once it has ended"), "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn reload_does_not_wait_for_what_is_not_on_this_vm() {
        for code in [Code::IstiodUnreachable, Code::JoinSource, Code::CertificateMissing] {
            let (end, took) = ended(Some(status(after(), false, code))).await;
            assert!(matches!(end, End::Unready(_)), "{end:?}");
            assert!(took < SERVE_TIMEOUT / 10, "{took:?}");
        }
    }
}
