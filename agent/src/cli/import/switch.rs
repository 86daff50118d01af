//! The switch from Istio's own agent to this one, and back.
//!
//! Calls are redirected all the time: our rules go in beside its, before it stops. From the end of its Envoy to the
//! start of ours they are refused, as after any end of Envoy. A switch that fails is undone.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};

use super::account;
use crate::cli::{Verdict, check, revert, say};
use crate::config::{Backend, Config, PathsConfig};
use crate::facts::Membership;
use crate::host::change::revert_all;
use crate::host::{Host, Invocation};
use crate::identity;
use crate::intercept::{self, Directions, IstioRules};
use crate::join::Join;
use crate::sidecar::{self, Settings, Sidecar};

const OURS: &str = "istio-vm-agent.service";
/// Seconds until a start that has not joined the mesh counts as failed.
const PATIENCE: &str = "90";

pub(super) fn run(host: &Host, path: &Path, settings: &Settings) -> Result<Verdict> {
    let config = Config::load(path)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let membership = runtime.block_on(Join::open(&config, host)?.fetch())?;
    check::expect_fit(&config, host, &membership).context("nothing has been switched")?;
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
    };
    let taken = switch.make().map_err(|error| match switch.back(path) {
        Ok(()) => error.context("the switch failed and is undone: Istio's own agent is back"),
        Err(left) => error.context(format!("the switch failed, and so did going back ({left:#})")),
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
    let paths = paths(path);
    let theirs = sidecar::find(host)?.unwrap_or_default();
    ensure!(theirs.unit.is_some(), "there is no {} to go back to", sidecar::UNIT);
    if host.meta(&paths.sidecar_backup())?.is_none() {
        bail!("nothing was switched: there is no {}", paths.sidecar_backup().display());
    }
    back(host, path, &theirs)?;
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
        } = self;
        let is_ours = account::is_ours(host)?;
        let redirects = config.intercept.backend != Backend::None;
        let options = intercept::Options::new((*host).clone(), config);
        if redirects {
            // Under another number its Envoy would be redirected to itself.
            let directions = Directions {
                inbound: true,
                outbound: is_ours,
            };
            intercept::beside(membership, &options, directions)?;
        }
        if theirs.unit.is_some() {
            systemctl(host, &["disable", "--now", sidecar::UNIT])?;
        }
        let left = sidecar::find(host)?.unwrap_or_default();
        ensure!(left.pids.is_empty(), "it still runs: pid {:?}", left.pids);
        if !is_ours {
            account::renumber(host)?;
        }
        if redirects {
            // Takes its chains out in the same step.
            intercept::change(membership, &options)?.apply(host)?;
        } else {
            revert_all(host, &intercept::marks())?;
        }
        intercept::remove_istio(host, &rules(settings))?;
        let taken = sidecar::take_away(host, settings, theirs.enabled, &config.paths.sidecar_backup())?;
        systemctl(host, &["enable", OURS])?;
        host.run(&Invocation::new(["timeout", PATIENCE, "systemctl", "start", OURS]))
            .context("this agent didn't join the mesh: see `journalctl -u istio-vm-agent`")?;
        Ok(taken)
    }

    fn back(&self, path: &Path) -> Result<()> {
        back(self.host, path, self.theirs)
    }
}

fn back(host: &Host, path: &Path, theirs: &Sidecar) -> Result<()> {
    let paths = paths(path);
    systemctl(host, &["disable", "--now", OURS])?;
    revert::revert(host, path)?;
    // It may be over by now; ours was renewed.
    let ours = identity::stored(host, &paths.identity()).ok().flatten();
    let newer = ours.filter(|it| it.valid_at(SystemTime::now()));
    let store = paths.sidecar_backup();
    let restored = sidecar::put_back(host, &store, newer.as_ref())?;
    if restored.is_some_and(|was_enabled| was_enabled) || theirs.enabled {
        systemctl(host, &["enable", sidecar::UNIT])?;
    }
    if restored.is_some() || theirs.started {
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
fn paths(path: &Path) -> PathsConfig {
    Config::load(path).map(|config| config.paths).unwrap_or_default()
}

fn rules(settings: &Settings) -> IstioRules {
    let tproxy = settings.tproxy();
    IstioRules {
        interfaces: settings.interfaces(),
        mark: tproxy.mark,
        table: tproxy.table,
    }
}
