//! `check`: what would keep this VM from joining, each finding with its remedy. Changes nothing.

mod credentials;
mod envoy;
mod findings;
mod versions;

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::configuration::{ConfigSource, LoadedConfig};
use super::{Outcome, Output, print, take_proxy_group};
use crate::config::Config;
use crate::facts::Membership;
use crate::host::Host;
use crate::join::Join;
use crate::part::{Finding, Level, Site, Units};
use crate::terminal::one_line;

/// Longest wait for one answer from the network.
const NETWORK_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    let host = Host::system();
    let LoadedConfig { config, origin, .. } = ConfigSource::new(path, &host)?.find().await.inspect_err(|_| {
        // Without a configuration this is the one thing that there is to say.
        if let Some(found) = findings::sidecar(&host) {
            let _ = print(&text(&[found]));
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
    let site = Site {
        host,
        config,
        units: Units::default(),
    };
    findings.extend(join.clock_problem().map(|problem| Finding::failed("clock", problem)));
    findings.extend(findings::gather(&site, &membership, join.tokens().as_deref()).await);
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&findings)? + "\n",
        Output::Text => text(&findings),
    })?;
    let failed = findings.iter().any(|finding| finding.level == Level::Failed);
    Ok(if failed { Outcome::Wrong } else { Outcome::Fine })
}

/// That nothing which the check looks at would keep this VM from joining.
///
/// # Errors
/// One line for each thing that would.
pub(super) async fn expect_fit(config: &Config, host: &Host, membership: &Membership, join: &Join) -> Result<()> {
    let _ = take_proxy_group();
    let site = Site {
        host: host.clone(),
        config: config.clone(),
        units: Units::default(),
    };
    let mut findings = findings::gather(&site, membership, join.tokens().as_deref()).await;
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
