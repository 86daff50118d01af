//! The lines of a run, read again.

use std::time::SystemTime;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::Run;
use crate::gate::Figures;
use crate::migration::Share;

#[derive(Deserialize)]
struct Line {
    at: String,
    #[serde(flatten)]
    told: Told,
}

/// The part of [`crate::output::Event`] that a report has.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Told {
    Running {
        service: String,
    },
    Judged(Judged),
    Arrived {
        cluster: String,
        proxies: usize,
        milliseconds: u64,
    },
    Settled {
        cluster: String,
        milliseconds: u64,
    },
    TakenBack {
        because: String,
    },
    Failed {
        because: String,
    },
    Done {
        what: String,
    },
    #[serde(other)]
    Other,
}

/// The gate's word on one cluster.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Judged {
    pub(super) share: Share,
    pub(super) cluster: String,
    pub(super) verdict: String,
    pub(super) because: String,
    /// Seconds in which the figures were counted.
    pub(super) window: f64,
    pub(super) vm: Option<Figures>,
    pub(super) pods: Option<Figures>,
}

impl Judged {
    /// The part of the calls that ended at the pods, in percent.
    pub(super) fn measured(&self) -> Option<f64> {
        let (vm, pods) = (self.vm?.requests, self.pods?.requests);
        (vm + pods > 0.0).then(|| pods / (vm + pods) * 100.0)
    }
}

/// Reads a run.
///
/// # Errors
/// When a line is none of `run --json`, with its number, and when there is no verdict to report.
#[expect(
    clippy::disallowed_methods,
    reason = "moments that were read as RFC 3339, which ends with the year 9999"
)]
pub(super) fn parse(text: &str) -> Result<Run> {
    let mut told = Vec::new();
    let mut moments: Vec<SystemTime> = Vec::new();
    let count = text.lines().count();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let about = || format!("line {} is none of `run --json`", at + 1);
        let read = serde_json::from_str(line);
        // A program that was killed has written half a line.
        let is_cut = at + 1 == count && !text.ends_with('\n') && line.starts_with('{');
        if is_cut && at > 0 && read.is_err() {
            break;
        }
        let line: Line = read.with_context(about)?;
        let moment = humantime::parse_rfc3339(&line.at).with_context(about)?;
        moments.push(moment);
        // A clock that was set back in between makes no negative time.
        let since = moment.duration_since(moments[0]).unwrap_or_default();
        told.push((since.as_secs_f64(), line.told));
    }
    let is_judged = told.iter().any(|(_, told)| matches!(told, Told::Judged(_)));
    let (Some(from), Some(to), true) = (moments.first(), moments.last(), is_judged) else {
        bail!("no line has a verdict of the gate: there is nothing to report");
    };
    let text = |moment: &SystemTime| humantime::format_rfc3339_seconds(*moment).to_string();
    Ok(Run {
        from: text(from),
        to: text(to),
        told,
    })
}
