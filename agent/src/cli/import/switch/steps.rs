//! The switch, step by step.
//!
//! Wherever it is cut off, the next boot starts an agent: Istio's own until it is disabled, which is after all that
//! ours needs, and ours from then on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::{OURS, account, systemctl};
use crate::cli::block_on;
use crate::config::{Backend, Config};
use crate::facts::Membership;
use crate::host::change::HostChange;
use crate::host::{Host, Invocation};
use crate::intercept::{self, IstioRules};
use crate::sidecar::{self, Before, Settings, Sidecar};
use crate::supervise::Process;

/// Time from TERM to KILL, for a process that has nothing left to do.
const GRACE: Duration = Duration::from_secs(1);

/// Has its unit leave its rules in at its stop, instead of cleaning them up: ours take their place at once. Gone with a
/// reboot, like the rules.
pub(super) const LEAVE_RULES: &str = "/run/systemd/system/istio.service.d/istio-vm-agent.conf";

pub(super) struct Switch<'a> {
    host: &'a Host,
    config: &'a Config,
    membership: &'a Membership,
    settings: &'a Settings,
    theirs: &'a Sidecar,
    within: Duration,
    store: PathBuf,
    /// Files and lines that were taken away, by name.
    pub(super) taken: Vec<String>,
}

/// Completes `failed to …`, and does it.
type Step<'a> = (&'static str, fn(&mut Switch<'a>) -> Result<()>);

impl<'a> Switch<'a> {
    /// The steps in their order. Each can be taken again, and going back undoes them all, one taken halfway too.
    const STEPS: [Step<'a>; 10] = [
        ("write down how Istio's own agent stands", Self::remember),
        ("have its rules outlive it", Self::keep_its_rules),
        ("stop it", Self::stop_it),
        ("give the user istio-proxy its number", Self::renumber),
        ("put the rules in its rules' place", Self::redirect),
        ("take away what is left of its rules", Self::remove_its_rules),
        ("take its secrets and lines of /etc/hosts away", Self::take_away),
        ("make this agent the one that starts at boot", Self::change_boot),
        ("start this agent", Self::start),
        ("finish", Self::finish),
    ];

    pub(super) fn new(
        host: &'a Host,
        config: &'a Config,
        membership: &'a Membership,
        settings: &'a Settings,
        theirs: &'a Sidecar,
        within: Duration,
    ) -> Self {
        Self {
            host,
            config,
            membership,
            settings,
            theirs,
            within,
            store: config.paths.sidecar_backup(),
            taken: Vec::new(),
        }
    }

    pub(super) fn make(&mut self) -> Result<()> {
        Self::STEPS
            .iter()
            .try_for_each(|(what, take)| take(self).with_context(|| format!("failed to {what}")))
    }

    fn remember(&mut self) -> Result<()> {
        let before = Before {
            enabled: self.theirs.enabled,
            started: self.theirs.started,
            user: sidecar::ids(self.host)?.filter(|ids| *ids != account::OURS),
        };
        sidecar::remember(self.host, before, &self.store)
    }

    fn keep_its_rules(&mut self) -> Result<()> {
        if self.theirs.unit.is_none() {
            return Ok(());
        }
        let path = Path::new(LEAVE_RULES);
        let folder = path.parent().context("it has no folder")?;
        self.host.make_directory(folder, 0o755, None)?;
        self.host.write(path, "[Service]\nExecStopPost=\n", 0o644, None)?;
        // Before the stop: it takes half a second, in which calls would wait.
        systemctl(self.host, &["daemon-reload"])
    }

    fn stop_it(&mut self) -> Result<()> {
        if self.theirs.unit.is_some() {
            systemctl(self.host, &["stop", sidecar::UNIT])?;
        }
        end_what_is_left(self.host)
    }

    /// Starts from the number that was written down: an earlier try may have given the user its own, and not all of its
    /// files.
    fn renumber(&mut self) -> Result<()> {
        match sidecar::before(self.host, &self.store)?.and_then(|before| before.user) {
            Some(ids) => account::renumber(self.host, ids, account::OURS),
            None => Ok(()),
        }
    }

    fn redirect(&mut self) -> Result<()> {
        let options = intercept::Options::new(self.host.clone(), self.config);
        match self.config.intercept.backend {
            // The operator's own rules were there before, and stay.
            Backend::None if self.settings.are_rules_the_operators() => Ok(()),
            Backend::None => intercept::owned_rules().revert(self.host),
            // Takes its chains out in the same step.
            _ => intercept::change(self.membership, &options)?.apply(self.host),
        }
    }

    /// Runs before ours writes its own lines into /etc/hosts, so that all that is put back has its old place.
    fn take_away(&mut self) -> Result<()> {
        self.taken = sidecar::take_away(self.host, self.settings, &self.store)?;
        Ok(())
    }

    /// Ours refuses to start while the other is enabled: which of them starts changes with one link.
    fn change_boot(&mut self) -> Result<()> {
        systemctl(self.host, &["--no-reload", "enable", OURS])?;
        match self.theirs.unit {
            Some(_) => systemctl(self.host, &["--no-reload", "disable", sidecar::UNIT]),
            None => Ok(()),
        }
    }

    /// Waits until our agent serves, which is what its unit calls started.
    fn start(&mut self) -> Result<()> {
        let start = Invocation::new(["systemctl", "start", OURS]).within(self.within);
        self.host.run(&start).map(drop).map_err(|_| {
            let (state, within) = (
                self.host.unit_property(OURS, "StatusText").unwrap_or_default(),
                self.within,
            );
            anyhow!("it didn't join the mesh within {within:?} ({state}): see `journalctl -u istio-vm-agent`")
        })
    }

    /// Removes the rules of Istio's agent that are left: those that redirect are out already.
    fn remove_its_rules(&mut self) -> Result<()> {
        remove_its_rules(self.host, self.settings)
    }

    fn finish(&mut self) -> Result<()> {
        clean_up_again(self.host)?;
        sidecar::finished(self.host, &self.store)
    }
}

/// Removes the rules that our marks don't find, unless they are the operator's. A start of Istio's agent would add to
/// them.
pub(super) fn remove_its_rules(host: &Host, settings: &Settings) -> Result<()> {
    if settings.are_rules_the_operators() {
        return Ok(());
    }
    let tproxy = settings.tproxy();
    let rules = IstioRules {
        interfaces: settings.interfaces(),
        mark: tproxy.mark,
        table: tproxy.table,
    };
    intercept::remove_istio(host, &rules)
}

/// Has the unit of Istio's agent clean up again.
pub(super) fn clean_up_again(host: &Host) -> Result<()> {
    let path = Path::new(LEAVE_RULES);
    host.remove(path)?;
    if let Some(folder) = path.parent() {
        host.remove_empty_directory(folder)?;
    }
    systemctl(host, &["daemon-reload"])
}

/// Ends the processes that outlive the unit: an Envoy whose agent was killed.
fn end_what_is_left(host: &Host) -> Result<()> {
    let pids = || Ok::<_, io::Error>(sidecar::find(host)?.unwrap_or_default().pids);
    let left = pids()?;
    block_on(async {
        // One that can't be opened has ended by itself.
        for process in left.into_iter().filter_map(|pid| Process::open(pid).ok()) {
            process.terminate(GRACE).await?;
        }
        anyhow::Ok(())
    })?;
    let left = pids()?;
    ensure!(left.is_empty(), "it still runs: pid {left:?}");
    Ok(())
}
