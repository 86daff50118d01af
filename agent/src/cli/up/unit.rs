//! The agent's unit: started at boot and now, and waited for.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use super::phase::Phase;
use crate::cli::configuration::of_unit;
use crate::config::{Config, DEFAULT_PATH};
use crate::facts::Health;
use crate::host::{Host, Invocation};
use crate::status::{self, Agent, QUICK_TIMEOUT};

/// The agent's unit.
pub(in crate::cli) const UNIT: &str = "istio-vm-agent.service";
/// Between two looks.
const POLL: Duration = Duration::from_millis(500);
/// The longest wait for systemd, which only takes note of a start.
const TAKES_NOTE: Duration = Duration::from_secs(60);

/// Has systemd start the agent, now and at each boot; an agent that runs takes up a configuration that is new. `false`
/// where neither systemd has the unit nor an agent runs.
pub(super) async fn start(host: &Host, path: &Path, config: &Config, is_new: bool) -> Result<bool> {
    if !is_installed(host) {
        let runs = status::ask(&config.paths.status_socket(), QUICK_TIMEOUT).await.is_ok();
        ensure!(
            !runs || !is_new,
            "an agent runs that systemd knows nothing of, with another configuration: end it by SIGTERM, then \
             `istio-vm-agent up` again"
        );
        return Ok(runs);
    }
    let named = of_unit(host, Path::new(DEFAULT_PATH), UNIT);
    ensure!(
        named == path,
        "{UNIT} is started with {}, and this is about {}: leave --config out, or start the agent yourself",
        named.display(),
        path.display()
    );
    let mut phase = Phase::begin("Start")?;
    phase.tell(UNIT)?;
    systemctl(host, &["enable", UNIT], TAKES_NOTE).await?;
    let state = property(host, "ActiveState");
    if state == "failed" {
        // Else it would be taken for one that has failed just now.
        systemctl(host, &["reset-failed", UNIT], TAKES_NOTE).await?;
    }
    let runs = matches!(state.as_str(), "active" | "activating");
    if is_new || !runs {
        // Of an agent that runs it is a hand-over, also where a reload would wait for the end of its start.
        systemctl(host, &["--no-block", "restart", UNIT], TAKES_NOTE).await?;
    }
    phase.end(&format!("{UNIT}, at each boot too"))?;
    Ok(true)
}

/// Waits until the agent says that this VM serves, and shows meanwhile what it waits for.
pub(super) async fn wait(host: &Host, config: &Config, within: Duration) -> Result<()> {
    let mut phase = Phase::begin("Ready")?;
    let start = Instant::now();
    loop {
        let cause = match status::ask(&config.paths.status_socket(), QUICK_TIMEOUT).await {
            Ok(status) if status.health.ready => {
                return phase.end(&format!("after {:.1} s", start.elapsed().as_secs_f64()));
            }
            Ok(status) => cause(&status.agent, &status.health),
            Err(reason) => format!("the agent: {reason}"),
        };
        if property(host, "ActiveState") == "failed" {
            bail!("the agent ended: `systemctl status {UNIT}` says why; mend that, then `istio-vm-agent up` again");
        }
        if start.elapsed() >= within {
            bail!(
                "this VM does not serve after {within:?}: {cause}\nThe agent goes on trying: `istio-vm-agent status` \
                 says how it is, `istio-vm-agent up` waits again"
            );
        }
        phase.tell(&cause)?;
        sleep(POLL).await;
    }
}

/// The reason why a VM isn't ready, with what to do about it.
fn cause(agent: &Agent, health: &Health) -> String {
    let remedy = health.remedy.iter().map(|remedy| format!(" ({remedy})"));
    match (health.problems.first(), agent) {
        (Some(problem), _) => format!("{problem}{}", remedy.collect::<String>()),
        (None, Agent::Joining { source, .. }) => format!("{source} is waited for"),
        (None, _) => "starts".to_owned(),
    }
}

/// True where a systemd runs that has the agent's unit.
pub(in crate::cli) fn is_installed(host: &Host) -> bool {
    property(host, "LoadState") == "loaded"
}

/// Empty where no systemd runs.
fn property(host: &Host, name: &str) -> String {
    host.unit_property(UNIT, name).unwrap_or_default()
}

/// Runs `systemctl`, for so long at most.
pub(in crate::cli) async fn systemctl(host: &Host, arguments: &[&str], within: Duration) -> Result<()> {
    let argv = ["systemctl", "--quiet"].into_iter().chain(arguments.iter().copied());
    let call = Invocation::new(argv).within(within);
    let ran = host.blocking(move |host| Ok(host.run(&call)?)).await;
    ran.map(drop)
        .with_context(|| format!("failed to have systemd {}", arguments.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cause_is_the_first_problem_and_what_to_do() {
        let joining = Agent::Joining {
            version: "1".to_owned(),
            pid: 1,
            since: std::time::UNIX_EPOCH,
            process_since: None,
            source: "join.gke".to_owned(),
        };
        let mut health = Health::default();
        assert_eq!(cause(&joining, &health), "join.gke is waited for");
        assert_eq!(cause(&Agent::default(), &health), "starts");
        health.problems = vec!["no istiod".to_owned(), "no Envoy".to_owned()];
        assert_eq!(cause(&joining, &health), "no istiod");
        health.remedy = Some("start it".to_owned());
        assert_eq!(cause(&joining, &health), "no istiod (start it)");
    }
}
