//! `check`: what would keep this VM from joining, each finding with its remedy. Changes nothing.

mod credentials;
mod envoy;
mod findings;
mod versions;

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::configuration::{Found, Places};
use super::{Output, Verdict, say, take_proxy_group};
use crate::config::Config;
use crate::facts::Membership;
use crate::host::Host;
use crate::join::Join;
use crate::terminal::one_line;

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    name: &'static str,
    level: Level,
    /// What was found and, unless it is fine, what to do.
    detail: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warning,
    Failed,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            detail: detail.into(),
        }
    }

    fn warning(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Warning,
            detail: detail.into(),
        }
    }

    fn failed(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Failed,
            detail: detail.into(),
        }
    }
}

pub(super) async fn run(path: &Path, output: Output) -> Result<Verdict> {
    let host = Host::system();
    let Found { config, origin, .. } = Places::new(path, &host)?.find().await.inspect_err(|_| {
        // Without a configuration this is the one thing that there is to say.
        if let Some(found) = findings::sidecar(&host) {
            let _ = say(&text(&[found]));
        }
    })?;
    let join = Join::open(&config, &host)?;
    // So that this process's own calls pass the rules of a running agent.
    let _ = take_proxy_group();
    let membership = join.fetch().await?;
    let mut findings = vec![
        Finding::ok("configuration", format!("{origin} is good")),
        Finding::ok(
            "join",
            format!(
                "{} at {}, from {}",
                membership.spiffe_id,
                membership.discovery_address,
                join.source()
            ),
        ),
    ];
    findings.extend(findings::exposed(&config, path, &host));
    findings.extend(join.clock_problem().map(|problem| Finding::failed("clock", problem)));
    findings.extend(findings::gather(&config, &host, &membership, join.tokens().as_deref()).await);
    say(&match output {
        Output::Json => serde_json::to_string_pretty(&findings)? + "\n",
        Output::Text => text(&findings),
    })?;
    let failed = findings.iter().any(|finding| finding.level == Level::Failed);
    Ok(if failed { Verdict::Wrong } else { Verdict::Fine })
}

/// That nothing which the check looks at would keep this VM from joining.
///
/// # Errors
/// When something would, one line each.
pub(super) async fn expect_fit(config: &Config, host: &Host, membership: &Membership, join: &Join) -> Result<()> {
    let _ = take_proxy_group();
    let mut findings = findings::gather(config, host, membership, join.tokens().as_deref()).await;
    findings.retain(|finding| finding.level == Level::Failed && finding.name != findings::SIDECAR);
    anyhow::ensure!(
        findings.is_empty(),
        "this VM can't join the mesh:\n{}",
        text(&findings).trim_end()
    );
    Ok(())
}

fn text(findings: &[Finding]) -> String {
    findings
        .iter()
        .fold(String::new(), |mut text, Finding { name, level, detail }| {
            let level = match level {
                Level::Ok => "ok",
                Level::Warning => "warning",
                Level::Failed => "FAILED",
            };
            // Writing to a String can't fail.
            let _ = writeln!(text, "{level:<9}{name:<15}{}", one_line(detail));
            text
        })
}
