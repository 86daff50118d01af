//! `check`: what would keep this VM from joining, each finding with its remedy. Changes nothing.

mod control_plane;
mod credentials;
mod document;
mod envoy;
mod examination;
#[cfg(test)]
mod followed;
mod host;
#[cfg(test)]
mod judged;
mod ports;
mod proxies;
#[cfg(test)]
mod remedies;
mod routes;
mod selector;
mod text;
mod units;
mod versions;

pub(super) use units::{expect_seen, named};

use std::io::{IsTerminal, Write, stderr, stdout};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep};

use super::{Outcome, Output, print, print_printable, take_proxy_group};
use crate::config::{Config, parse_duration};
use crate::facts::Membership;
use crate::host::Host;
use crate::join::Join;
use crate::part::{Finding, Level};
use crate::terminal::Paint;
use examination::{Examination, examine, findings_of};
use selector::{Selector, Word, WordParser};
pub(super) use versions::istio_release;

/// Longest wait for one answer from the network, or for a command.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// Wait between two rounds of questions.
const INTERVAL: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    /// Ask about these alone: codes, such as IVA301, and areas (host, join, control-plane, identity, envoy, interception,
    /// names, workload), with commas between.
    #[arg(long, value_name = "CODE|AREA", value_delimiter = ',', value_parser = WordParser, hide_possible_values = true)]
    only: Vec<Word>,
    /// Ask again until nothing fails, for so long at most; 5m where no time is given.
    #[arg(long, value_name = "TIMEOUT", num_args = 0..=1, require_equals = true, default_missing_value = "5m",
          value_parser = parse_duration)]
    wait: Option<Duration>,
}

pub(super) async fn run(path: &Path, output: Output, arguments: &CheckArguments) -> Result<Outcome> {
    // So that this process's own calls pass the rules of a running agent.
    let _ = take_proxy_group();
    let selector: Selector = arguments.only.iter().cloned().collect();
    let streams = output == Output::Text && arguments.wait.is_none() && stdout().is_terminal();
    let paint = Paint::of_stdout();
    let mut tell = |finding: &Finding| {
        if streams {
            let _ = print_printable(&text::line(finding, paint));
        }
    };
    let end = Instant::now() + arguments.wait.unwrap_or_default();
    let (mut waited_for, mut signed) = (String::new(), None);
    let Examination { findings, error } = loop {
        let examination = examine(path, &selector, signed.take(), &mut tell).await?;
        let failed = text::failures(&examination.findings);
        if failed.is_empty() || Instant::now() + INTERVAL > end {
            break examination;
        }
        if output == Output::Text && failed != waited_for {
            let _ = writeln!(stderr(), "waiting for {failed}");
            waited_for = failed;
        }
        signed = control_plane::signed(&examination.findings);
        sleep(INTERVAL).await;
    };
    match output {
        Output::Json => print(&document::json(&findings)?)?,
        Output::Text if streams => Outcome::Fine,
        Output::Text => print_printable(&text::lines(&findings, paint))?,
    };
    match error {
        Some(error) => Err(error),
        None if findings.iter().any(|finding| finding.level == Level::Failed) => Ok(Outcome::Wrong),
        None => Ok(Outcome::Fine),
    }
}

/// All findings, for programs.
pub(super) async fn document(path: &Path) -> Result<String> {
    let Examination { findings, .. } = examine(path, &Selector::default(), None, &mut |_| {}).await?;
    document::json(&findings)
}

/// Findings of one round, for `up`.
pub(super) struct Report {
    /// Number of findings of each level, in words.
    pub(super) counts: String,
    /// Warnings and failures, a line each.
    pub(super) text: String,
    /// Codes and names of what failed.
    pub(super) failed: String,
}

/// Asks everything about the configuration at `path`, but for what `up` itself does next.
pub(super) async fn report(path: &Path) -> Result<Report> {
    let Examination { mut findings, error } = examine(path, &Selector::default(), None, &mut |_| {}).await?;
    findings.retain(|finding| !units::is_enabled_by_up(finding));
    let text = text::lines(
        findings
            .iter()
            .filter(|it| matches!(it.level, Level::Warning | Level::Failed)),
        Paint::PLAIN,
    );
    match error {
        Some(error) => Err(error),
        None => Ok(Report {
            counts: text::counts(&findings),
            text,
            failed: text::failures(&findings),
        }),
    }
}

/// Fails when something that the check looks at would keep this VM from joining. Istio's own agent, whose place is
///  taken, doesn't count.
///
/// # Errors
/// One line for each thing that would.
pub(super) async fn expect_fit(config: &Config, host: &Host, membership: &Membership, join: &Join) -> Result<()> {
    let _ = take_proxy_group();
    let mut findings = findings_of(config, host, membership, join).await;
    findings.retain(|finding| finding.level == Level::Failed && !host::THEIRS.iter().any(|it| finding.is_of(*it)));
    anyhow::ensure!(
        findings.is_empty(),
        "this VM can't join the mesh:\n{}",
        text::lines(&findings, Paint::PLAIN).trim_end()
    );
    Ok(())
}
