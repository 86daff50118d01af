//! `config validate`: what `run` would refuse, all of it.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::JSON_VERSION;
use crate::cli::configuration::{ConfigSource, LoadedConfig};
use crate::cli::exposure::exposures;
use crate::cli::{Outcome, Output, print};
use crate::config::{Config, ConfigError, Fault, JoinConfig};
use crate::control_plane::listed_addresses;
use crate::facts::{HostPort, Membership};
use crate::host::Host;
use crate::join::Join;
use crate::terminal::one_line;

/// Result of `config validate`, for programs.
#[derive(Debug, Serialize)]
pub(in crate::cli) struct Report {
    version: u32,
    valid: bool,
    /// Place of the configuration, in words; absent when it can't be read.
    configuration: Option<String>,
    /// The join source; absent when the configuration can't be read.
    source: Option<String>,
    pub(in crate::cli) errors: Vec<Fault>,
    warnings: Vec<String>,
}

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    let report = judged(path).await?;
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&report)? + "\n",
        Output::Text => report.text(),
    })?;
    Ok(match report.valid {
        true => Outcome::Fine,
        false => Outcome::Misconfigured,
    })
}

/// The verdict on the configuration at `path`, and on the bundle that is at hand.
///
/// # Errors
/// When it can't be had, which may be over at the next try.
pub(in crate::cli) async fn judged(path: &Path) -> Result<Report> {
    let host = Host::system();
    let mut report = Report {
        version: JSON_VERSION,
        valid: false,
        configuration: None,
        source: None,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let judged = judge(path, &host, &mut report).await;
    match judged.map_err(anyhow::Error::downcast::<ConfigError>) {
        Ok(()) => report.valid = true,
        Err(Ok(error)) if error.is_final() => report.errors = error.faults().to_vec(),
        // Nobody has to correct what this VM lacks for now: `run` tries again, and says the same.
        Err(Ok(error)) => {
            report.valid = true;
            report.warnings.extend(error.faults().iter().map(Fault::to_string));
        }
        // May be gone at the next try: no word about the configuration.
        Err(Err(error)) => return Err(error),
    }
    Ok(report)
}

async fn judge(path: &Path, host: &Host, report: &mut Report) -> Result<()> {
    let LoadedConfig { config, origin, .. } = ConfigSource::new(path, host)?.find().await?;
    report.configuration = Some(origin);
    let exposed = exposures(&config, path, host).into_iter();
    report.warnings.extend(exposed.map(|exposure| exposure.to_string()));
    let join = Join::open(&config, host)?;
    report.source = Some(join.source());
    match join.at_hand() {
        Ok(Some(membership)) => {
            report.warnings.extend(nameless(&config, &membership));
            report.warnings.extend(membership.unheeded);
        }
        Ok(None) => report.warnings.push(format!(
            "nothing is known yet of {}: `istio-vm-agent check` asks it",
            join.source()
        )),
        // `run` asks again for what a remote source gave last.
        Err(error) if !join.is_local() => {
            let problem = format!("what {} gave last is of no use: {error:#}", join.source());
            report.warnings.push(problem);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// The warning that no file gives istiod's name an address; a name of the cluster is known to no other name server.
fn nameless(config: &Config, membership: &Membership) -> Option<String> {
    let address = &membership.discovery_address;
    let name = HostPort::parse(address).ok()?.host;
    let is_of_the_cluster = name.split('.').nth(2) == Some("svc");
    let is_bundle = matches!(config.join, JoinConfig::Directory(_) | JoinConfig::Https(_));
    let is_asked = is_bundle && config.control_plane.addresses.is_empty();
    let is_listed = !listed_addresses(membership, address).is_empty();
    (is_asked && is_of_the_cluster && !is_listed).then(|| {
        format!(
            "no line of the bundle's hosts file has {name}, which a name server outside the cluster hardly knows: give \
             `istioctl x workload entry configure` --ingressIP, or write `ADDRESS {name}`"
        )
    })
}

impl Report {
    fn text(&self) -> String {
        let mut lines: Vec<String> = self.errors.iter().map(|fault| format!("error: {fault}")).collect();
        lines.extend(self.warnings.iter().map(|warning| format!("warning: {warning}")));
        if let (true, Some(configuration), Some(source)) = (self.valid, &self.configuration, &self.source) {
            lines.push(format!(
                "{configuration} is good, and so is what is at hand of {source}"
            ));
        }
        lines.iter().map(|line| format!("{}\n", one_line(line))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures;
    use crate::facts::HostEntry;

    #[test]
    fn name_of_the_cluster_that_no_line_has_is_told() {
        let mut config = Config::default();
        let mut membership = fixtures::membership();
        membership.hosts.clear();
        membership.discovery_address = "istiod.istio-system.svc:15012".to_owned();
        let told = nameless(&config, &membership).unwrap();
        assert!(told.contains("`ADDRESS istiod.istio-system.svc`"), "{told}");
        config.control_plane.addresses = vec!["istiod.example.com:15012".to_owned()];
        assert_eq!(nameless(&config, &membership), None);
        config.control_plane.addresses.clear();
        let hosts = vec![HostEntry {
            ip: [10, 0, 0, 9].into(),
            names: vec!["istiod.istio-system.svc".to_owned()],
        }];
        assert_eq!(
            nameless(
                &config,
                &Membership {
                    hosts,
                    ..membership.clone()
                }
            ),
            None
        );
        membership.discovery_address = "istiod.example.com:15012".to_owned();
        assert_eq!(nameless(&config, &membership), None);
    }

    #[test]
    fn report_has_a_line_for_each_thing_that_is_wrong() {
        let error = Config::parse(Path::new("c.toml"), "[join]\n[log]\nlevel = 'loud'\n").unwrap_err();
        let mut report = Report {
            version: JSON_VERSION,
            valid: false,
            configuration: None,
            source: None,
            errors: error.faults().to_vec(),
            warnings: vec!["w\nx".to_owned()],
        };
        let text = report.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(
            lines[0].starts_with("error: c.toml:1:1: join: names no source"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("error: c.toml:3:1: log.level = \"loud\""),
            "{text}"
        );
        assert_eq!(lines[2], "warning: w\\nx");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["errors"][1]["place"], "c.toml");
        assert_eq!(
            (&json["errors"][1]["line"], &json["errors"][1]["column"]),
            (&3.into(), &1.into())
        );
        report.errors.clear();
        report.valid = true;
        report.configuration = Some("c.toml".to_owned());
        report.source = Some("directory /b".to_owned());
        assert!(
            report
                .text()
                .ends_with("c.toml is good, and so is what is at hand of directory /b\n")
        );
    }
}
