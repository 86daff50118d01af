//! `run`: everything that can be wrong in the input is found before anything is touched.

mod signals;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;

use super::configuration::prepare;
use super::exposure::exposures;
use super::import::expect_own_id;
use super::{Outcome, block_on, take_proxy_group, unconfigured};
use crate::app::{self, Ended, Inputs};
use crate::bounds::Refusals;
use crate::host::{FdStore, Host, InheritedSockets};
use crate::part::{Site, Units};
use crate::{sidecar, telemetry};
use signals::Heard;

/// Time for blocking calls that are under way at the end.
const LOOK_UPS: Duration = Duration::from_secs(1);

pub(super) fn run(path: &Path, units: Option<Units>) -> Result<Outcome> {
    let began = Instant::now();
    let kept = InheritedSockets::from_environment();
    let store = kept.store();
    // By hand it is an error, as for every other verb.
    if units.is_some()
        && let Some(outcome) = block_on(unconfigured::report_missing(path))?
    {
        return Ok(outcome);
    }
    let host = Host::system();
    let (found, join) = block_on(prepare(path, &host))?;
    sidecar::expect_inactive(&host)?;
    if units.is_some() {
        expect_own_id(&host)?;
    }
    let refusals = Refusals::default();
    telemetry::install(&found.config.log, refusals.clone())?;
    tracing::info!("the configuration is {}", found.origin);
    for exposed in exposures(&found.config, path, &host) {
        tracing::warn!("{exposed}");
    }
    let config = found.config;
    take_proxy_group()?;
    let Heard {
        runtime,
        late,
        signals,
        haste,
    } = signals::listen()?;
    seed(&runtime);
    let unit = units.as_ref().and_then(|units| units.agent.clone());
    let ended = runtime.block_on(async {
        let reload_problem = watch::Sender::default();
        let stop = signals.stop(path.to_owned(), config.paths.clone(), reload_problem.clone());
        let site = Site {
            host,
            config,
            units: units.unwrap_or_default(),
        };
        let inputs = Inputs {
            began,
            site,
            join,
            kept,
            refusals,
            reload_problem,
        };
        app::run(inputs, stop, haste.repeated()).await
    })?;
    end(runtime);
    match ended {
        Ended::Done => Ok(Outcome::Fine),
        Ended::ForGood => Ok(end_for_good(&Host::system(), unit.as_deref())),
        Ended::BeginAgain => {
            late.leave_to_the_next()?;
            begin_again(&store)
        }
    }
}

/// Has aws-lc find its first random number, which it draws from the jitter of the processor's clock for 30 to 90 ms, while Envoy
/// starts. A TLS connection would wait for it: an agent with a certificate makes its first one once Envoy has asked.
fn seed(runtime: &Runtime) {
    runtime.spawn_blocking(|| aws_lc_rs::rand::fill(&mut [0]));
}

/// Has the tasks let go of their sockets. A look-up of a name can't be broken off, and takes as long as dead name servers let it.
fn end(runtime: Runtime) {
    runtime.shutdown_timeout(LOOK_UPS);
}

/// Has all units that go with the agent's stop with it, as if somebody had stopped it. Without a unit the end is that of any
/// program which was told to end: what starts it again after a failure alone, such as a container's `on-failure`, doesn't.
fn end_for_good(host: &Host, unit: Option<&str>) -> Outcome {
    let Some(unit) = unit else { return Outcome::Fine };
    if let Err(error) = host.end_unit(unit) {
        tracing::warn!("what goes with {unit} runs on, until that is stopped: {error}");
    }
    Outcome::ForGood
}

/// Becomes this program anew, with the same pid, arguments and environment: for systemd nothing has happened.
#[expect(
    clippy::disallowed_methods,
    reason = "Host::run waits for a child; this process itself goes on as another"
)]
fn begin_again(store: &FdStore) -> Result<Outcome> {
    let arguments = std::env::args_os().skip(1);
    let sockets = store.hand_on().context("failed to hand the DNS sockets on")?;
    let mut program = Command::new("/proc/self/exe");
    telemetry::flush();
    Err(program.args(arguments).envs(sockets).exec()).context("failed to begin again")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::host::Invocation;
    use crate::host::fixtures::Answers;

    #[test]
    fn look_up_that_does_not_end_keeps_no_agent_from_its_end() {
        let runtime = tokio::runtime::Builder::new_multi_thread().build().unwrap();
        let (answer, answered) = mpsc::channel::<()>();
        let (begin, begun) = mpsc::channel();
        runtime.spawn_blocking(move || {
            begin.send(()).unwrap();
            answered.recv()
        });
        begun.recv().unwrap();
        let (tell, told) = mpsc::channel();
        std::thread::spawn(move || {
            end(runtime);
            tell.send(())
        });
        told.recv_timeout(Duration::from_secs(20)).expect("it waits");
        answer.send(()).expect("it is waited for still");
    }

    #[test]
    fn agent_that_ends_for_good_takes_its_units_along_and_without_one_ends_as_any_program() {
        // Nobody waits for that: the agent ends first.
        let systemd = Answers(|call: &Invocation| {
            assert_eq!(call.to_string(), "systemctl stop --no-block a.service");
            Ok(String::new())
        });
        let host = Host::new("/nowhere", systemd);
        assert_eq!(end_for_good(&host, Some("a.service")), Outcome::ForGood);
        assert_eq!(end_for_good(&host, None), Outcome::Fine);
    }
}
