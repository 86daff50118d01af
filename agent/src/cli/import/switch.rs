//! The switch from Istio's own agent to this one, and back.
//!
//! Calls are redirected all the time: our rules go in beside its, before it stops. From the end of its Envoy to the
//! start of ours they are refused, as after any end of Envoy. How it stood is written down first: a switch that fails
//! is undone, and one that is interrupted can be.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::account;
use crate::cli::configuration::{Found, Places};
use crate::cli::{Verdict, check, revert, run, say};
use crate::config::{Backend, Config, PathsConfig};
use crate::facts::Membership;
use crate::host::change::revert_all;
use crate::host::{Host, Invocation};
use crate::identity;
use crate::intercept::{self, Directions, IstioRules};
use crate::sidecar::{self, Before, Settings, Sidecar};
use crate::supervise::Process;

const OURS: &str = "istio-vm-agent.service";
/// From TERM to KILL, for a process that has nothing left to do.
const GRACE: Duration = Duration::from_secs(1);

pub(super) fn run(host: &Host, path: &Path, settings: &Settings, within: Duration) -> Result<Verdict> {
    let (Found { config, .. }, join) = run::prepare(path, host)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let membership = runtime.block_on(join.fetch())?;
    check::expect_fit(&config, host, &membership, &join).context("nothing has been switched")?;
    account::expect_free(host)?;
    let theirs = sidecar::find(host)?.unwrap_or_default();
    ensure!(
        theirs.unit.is_some() || theirs.pids.is_empty(),
        "Istio's own agent {}, and no {} stops it: end it yourself, then run this again",
        theirs.activity().unwrap_or_default(),
        sidecar::UNIT
    );
    let switch = Switch {
        host,
        config: &config,
        membership: &membership,
        settings,
        theirs: &theirs,
        within,
    };
    let taken = switch.make().map_err(|error| match back(host, path, theirs.started) {
        Ok(()) if theirs.started => error.context("the switch failed and is undone: Istio's own agent is back"),
        Ok(()) => error.context("the switch failed and is undone"),
        Err(left) => error.context(format!(
            "the switch failed, and so did going back ({left:#}): mend that, then `istio-vm-agent import --undo`"
        )),
    })?;
    let taken: String = taken.iter().map(|name| format!("  {name}\n")).collect();
    say(&format!(
        "This VM is in the mesh by istio-vm-agent; {} is stopped and disabled. Taken away from it:\n{taken}\
         `istio-vm-agent import --undo` goes back. Before you purge the package istio-sidecar: its Envoy goes with it, \
         and the one here is {}.\n",
        sidecar::UNIT,
        config.envoy.source()
    ))
}

/// Stops this agent, puts back what a switch took away, and starts Istio's own.
pub(super) fn undo(host: &Host, path: &Path) -> Result<Verdict> {
    let store = paths(path, host).sidecar_backup();
    let theirs = sidecar::find(host)?.unwrap_or_default();
    ensure!(theirs.unit.is_some(), "there is no {} to go back to", sidecar::UNIT);
    if host.meta(&store)?.is_none() {
        bail!("nothing was switched: there is no {}", store.display());
    }
    back(host, path, true)?;
    say(&format!(
        "{} runs again, with all that was taken away from it.\n",
        sidecar::UNIT
    ))
}

struct Switch<'a> {
    host: &'a Host,
    config: &'a Config,
    membership: &'a Membership,
    settings: &'a Settings,
    theirs: &'a Sidecar,
    within: Duration,
}

impl Switch<'_> {
    /// What was taken away.
    fn make(&self) -> Result<Vec<String>> {
        let Self {
            host,
            config,
            membership,
            settings,
            theirs,
            within,
        } = self;
        let store = config.paths.sidecar_backup();
        let other_ids = account::ids(host)?.filter(|ids| *ids != account::OURS);
        let before = Before {
            enabled: theirs.enabled,
            started: theirs.started,
            user: other_ids,
        };
        sidecar::remember(host, before, &store)?;
        let redirects = config.intercept.backend != Backend::None;
        let options = intercept::Options::new((*host).clone(), config);
        if redirects {
            // Under another number its Envoy would be redirected to itself.
            let directions = Directions {
                inbound: true,
                outbound: other_ids.is_none(),
            };
            intercept::beside(membership, &options, directions)?;
        }
        if theirs.unit.is_some() {
            systemctl(host, &["disable", "--now", sidecar::UNIT])?;
        }
        end_what_is_left(host)?;
        if let Some(ids) = other_ids {
            account::renumber(host, ids, account::OURS)?;
        }
        if redirects {
            // Takes its chains out in the same step.
            intercept::change(membership, &options)?.apply(host)?;
        } else {
            revert_all(host, &intercept::marks())?;
        }
        intercept::remove_istio(host, &rules(settings))?;
        let taken = sidecar::take_away(host, settings, &store)?;
        start(host, *within)?;
        // Takes systemd half a second, in which calls would wait.
        systemctl(host, &["enable", OURS])?;
        Ok(taken)
    }
}

/// What outlives its unit: an Envoy whose agent was killed.
fn end_what_is_left(host: &Host) -> Result<()> {
    let pids = || Ok::<_, io::Error>(sidecar::find(host)?.unwrap_or_default().pids);
    let left = pids()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        // One that can't be opened has ended by itself.
        for process in left.into_iter().filter_map(|pid| Process::open(pid).ok()) {
            process.terminate(GRACE).await?;
        }
        Ok::<_, io::Error>(())
    })?;
    let left = pids()?;
    ensure!(left.is_empty(), "it still runs: pid {left:?}");
    Ok(())
}

/// Until it serves, which is what its unit calls started.
fn start(host: &Host, within: Duration) -> Result<()> {
    let patience = format!("{}s", within.as_secs());
    let started = host.run(&Invocation::new(["timeout", &patience, "systemctl", "start", OURS]));
    started.map(drop).map_err(|_| {
        let state = ["systemctl", "show", "--property=StatusText", "--value", OURS];
        let state = host.run(&Invocation::new(state)).unwrap_or_default();
        anyhow!(
            "this agent didn't join the mesh within {patience} ({}): see `journalctl -u istio-vm-agent`",
            state.trim()
        )
    })
}

/// To how it was before the switch; `start`: with Istio's own agent running.
fn back(host: &Host, path: &Path, start: bool) -> Result<()> {
    let paths = paths(path, host);
    let store = paths.sidecar_backup();
    let Some(before) = sidecar::before(host, &store)? else {
        return Ok(());
    };
    systemctl(host, &["disable", "--now", OURS])?;
    revert::revert(host, path)?;
    // Its own may be over by now; ours was renewed.
    let ours = identity::stored(host, &paths.identity()).ok().flatten();
    let newer = ours.filter(|it| it.valid_at(SystemTime::now()));
    sidecar::put_back(host, &store, newer.as_ref())?;
    // Last, for they were taken away under our number.
    if let (Some(ids), Some(now)) = (before.user, account::ids(host)?)
        && ids != now
    {
        account::renumber(host, now, ids)?;
    }
    if before.enabled {
        systemctl(host, &["enable", sidecar::UNIT])?;
    }
    if start {
        systemctl(host, &["start", sidecar::UNIT])?;
    }
    sidecar::remove_backup(host, &store)
}

fn systemctl(host: &Host, arguments: &[&str]) -> Result<()> {
    let argv = ["systemctl", "--quiet"].into_iter().chain(arguments.iter().copied());
    host.run(&Invocation::new(argv))?;
    Ok(())
}

/// The configuration's, or the default ones when it can't be read any more.
fn paths(path: &Path, host: &Host) -> PathsConfig {
    let found = Places::new(path, host).and_then(|places| places.at_hand());
    found.ok().flatten().map(|config| config.paths).unwrap_or_default()
}

fn rules(settings: &Settings) -> IstioRules {
    let tproxy = settings.tproxy();
    IstioRules {
        interfaces: settings.interfaces(),
        mark: tproxy.mark,
        table: tproxy.table,
    }
}
