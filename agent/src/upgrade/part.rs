//! An upgrade of the package as a part: told while it is on trial, and after it was taken back.

use std::time::SystemTime;

use tokio::sync::watch;

use super::record::RecordFile;
use crate::facts::{Upgrade, UpgradeState, date};
use crate::host::{Changes as FileChanges, Host};
use crate::part::{
    Changes, Channels, CheckContext, Code, Context, Finding, Part, Problems, Question, SHORT, Section, Site, State,
    Subject, Task, ago, changes_of,
};
use crate::supervise::Scope;

/// Tells of an upgrade.
#[derive(Debug)]
pub struct UpgradePart;

const SECTION: State<Option<Upgrade>> = State {
    key: "upgrade",
    title: "Upgrade",
    live: |channels| channels.upgrade.borrow().clone(),
    offline: |site| load(&record(site)),
    lines: |upgrade, now| upgrade.iter().map(|upgrade| line(upgrade, now)).collect(),
};

const UPGRADE: Subject = Subject::new("IVA113", "upgrade");

/// The thing to do about an upgrade that was rolled back.
const FIX: &str = "install a version that serves, or the one before: `apt install istio-vm-agent=VERSION`; `journalctl -u \
                   istio-vm-agent` has the words of the one that failed";

impl Part for UpgradePart {
    fn name(&self) -> &'static str {
        "upgrade"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (host, record) = (context.site.host.clone(), record(&context.site));
        let publish = context.channels.upgrade.clone();
        Some(Task::new(SHORT, |scope| async move {
            follow(&scope, &host, &record, &publish).await;
            Ok(())
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.upgrade)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let upgrade = context.channels.upgrade.borrow();
        Problems::default().amiss(Code::UpgradeRolledBack, upgrade.as_ref().and_then(problem))
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        vec![Question::look(UPGRADE, context, |site| {
            [finding(load(&record(site)).as_ref())]
        })]
    }
}

fn record(site: &Site) -> RecordFile {
    RecordFile::new(&site.host, &site.config.paths)
}

/// The upgrade that is written down. One that can't be read is none, and its judge says so.
fn load(record: &RecordFile) -> Option<Upgrade> {
    record.load().ok().flatten().map(|record| record.upgrade)
}

async fn follow(scope: &Scope, host: &Host, record: &RecordFile, publish: &watch::Sender<Option<Upgrade>>) {
    let mut changes = FileChanges::of_file(&host.real_path(record.path()));
    publish.send_replace(load(record));
    scope.ready();
    loop {
        tokio::select! {
            biased;
            () = scope.draining() => return,
            () = changes.next() => {
                publish.send_replace(load(record));
            }
        }
    }
}

fn problem(upgrade: &Upgrade) -> Option<String> {
    let Upgrade {
        from,
        to,
        state,
        since,
        reason,
    } = upgrade;
    let reason = reason.as_deref().unwrap_or("for no reason that is known");
    (*state != UpgradeState::Trial).then(|| {
        format!(
            "the upgrade to {to} was rolled back at {}, and {from} serves, though dpkg names {to}: {reason}",
            date(*since)
        )
    })
}

fn finding(upgrade: Option<&Upgrade>) -> Finding {
    match upgrade {
        None => UPGRADE.ok("none is on trial, and none was rolled back"),
        Some(upgrade) => match problem(upgrade) {
            None => UPGRADE.ok(format!(
                "{} is on trial, {} is kept for a way back",
                upgrade.to, upgrade.from
            )),
            Some(problem) => UPGRADE.warning(problem, FIX),
        },
    }
}

fn line(upgrade: &Upgrade, now: SystemTime) -> String {
    let Upgrade {
        from,
        to,
        since,
        reason,
        ..
    } = upgrade;
    let since = ago(*since, now);
    match upgrade.state {
        UpgradeState::Trial => {
            format!("{to} is on trial since {since}; {from} comes back by itself if it doesn't serve")
        }
        UpgradeState::RollingBack => format!("{to} is being ROLLED BACK to {from}"),
        UpgradeState::RolledBack => format!(
            "{to} was ROLLED BACK {since}, {from} serves: {}",
            reason.as_deref().unwrap_or_default()
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::part::Level;

    fn upgrade(state: UpgradeState) -> Upgrade {
        Upgrade {
            from: "1.0".to_owned(),
            to: "1.1".to_owned(),
            state,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431),
            reason: Some("its agent died 3 times".to_owned()),
        }
    }

    #[test]
    fn upgrade_that_was_rolled_back_is_a_problem_until_another_is_installed() {
        let rolled_back = upgrade(UpgradeState::RolledBack);
        let told = problem(&rolled_back).unwrap();
        assert_eq!(
            told,
            "the upgrade to 1.1 was rolled back at 2026-11-21T03:23:51Z, and 1.0 serves, though dpkg names 1.1: its agent died \
             3 times"
        );
        assert_eq!(finding(Some(&rolled_back)).level, Level::Warning);
        for fine in [None, Some(upgrade(UpgradeState::Trial))] {
            assert_eq!(fine.as_ref().and_then(problem), None);
            assert_eq!(finding(fine.as_ref()).level, Level::Ok);
        }
    }
}
