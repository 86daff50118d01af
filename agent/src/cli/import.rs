//! `import`: what Istio's own agent was told becomes our configuration; `--switch` puts us in its place, `--undo` puts
//! it back.

mod account;
mod report;
mod switch;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::unconfigured::EXAMPLE;
use super::{Outcome, Output, print};
use crate::config::{Config, ConfigError, parse_duration};
use crate::facts::{Credentials, Membership, date};
use crate::host::Host;
use crate::sidecar::{self, Certificate, Import, Settings};
use crate::{identity, join};
use report::{File, Report};

pub(super) use account::expect_own_id;

/// Only root reads what is in it.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Options {
    /// Show what would be written, as a diff, and what becomes of each setting. Changes nothing.
    #[arg(long, conflicts_with_all = ["force", "switch", "undo", "within"])]
    dry_run: bool,
    /// Write over a configuration that is there.
    #[arg(long)]
    force: bool,
    /// Then take its place: stop it, take away its rules, secrets and lines of /etc/hosts, start this agent.
    #[arg(long)]
    switch: bool,
    /// Time that this agent may take to serve before the switch counts as failed, and is undone.
    #[arg(long, requires = "switch", value_name = "TIME", default_value = "90s", value_parser = parse_duration)]
    within: Duration,
    /// Put it back: stop this agent, restore what the switch took away, start Istio's own.
    #[arg(long, conflicts_with_all = ["force", "switch", "within"])]
    undo: bool,
}

impl Options {
    /// True where what is asked for is printed, and nothing more.
    pub(super) fn has_document(self) -> bool {
        self.dry_run
    }
}

pub(super) fn run(path: &Path, output: Output, options: Options) -> Result<Outcome> {
    let host = Host::system();
    if options.undo {
        return switch::undo(&host, path);
    }
    let settings = settings(&host)?;
    let is_there = host.meta(path)?.is_some();
    if is_there && options.switch && !options.force {
        print(&format!("{} is there, and stays as it is.\n", path.display()))?;
        return switch::run(&host, path, &settings, options.within);
    }
    let plan = Plan::make(&host, path, &settings)?;
    let report = plan.report(&host)?;
    if options.dry_run {
        return print(&report.print(output)?);
    }
    if is_there && !options.force {
        bail!(
            "{} is there: see what is different with --dry-run, write over it with --force, \
             or go on with it as it is with --switch",
            path.display()
        );
    }
    plan.write(&host)?;
    print(&report.written().print(output)?)?;
    if options.switch {
        return switch::run(&host, path, &settings, options.within);
    }
    print(
        "Nothing else has changed. `istio-vm-agent check` tries it; `istio-vm-agent import --switch` makes the switch.\n",
    )
}

/// The settings of Istio's own agent.
fn settings(host: &Host) -> Result<Settings, ConfigError> {
    let paths = [sidecar::SIDECAR_ENV, sidecar::CLUSTER_ENV].map(Path::new);
    let [sidecar, cluster] = paths.map(|path| sidecar::read(host, path));
    let texts = [sidecar?, cluster?];
    if texts.iter().all(Option::is_none) {
        let [sidecar, cluster] = paths;
        return Err(ConfigError::new(
            cluster,
            format!(
                "is missing, and so is {}: Istio's own agent is not on this VM. There is nothing to import, and nothing \
                 has been changed; a configuration for this VM starts from {EXAMPLE}",
                sidecar.display()
            ),
        ));
    }
    let [sidecar, cluster] = texts;
    let [sidecar, cluster] =
        [(paths[0], sidecar), (paths[1], cluster)].map(|(path, text)| join::variables(path, &text.unwrap_or_default()));
    Ok(Settings::new(sidecar?, cluster?))
}

/// All that is to be written, checked.
struct Plan {
    config: PathBuf,
    bundle: PathBuf,
    identity: PathBuf,
    import: Import,
    credentials: Option<Credentials>,
    certificate: String,
}

impl Plan {
    fn make(host: &Host, path: &Path, settings: &Settings) -> Result<Self> {
        let folder = path.parent().context("--config names no file")?;
        let bundle = std::path::absolute(folder.join("bundle"))?;
        let mut import = sidecar::import(host, settings, &bundle)?;
        let config = Config::parse(path, &import.config)?;
        let files: Vec<(&str, &str)> = import.bundle.files().collect();
        let membership =
            join::check(&config, &bundle, &files).context("what Istio's own agent was told makes no bundle")?;
        let taken = import.certificate.take();
        let (credentials, certificate) = match credentials(taken, &import, &membership) {
            Ok(found) => {
                let until = date(found.not_after);
                let told = format!("valid until {until}: it is taken over, and no token is needed");
                (Some(found), told)
            }
            Err(error) => {
                let next = match import.bundle.files().any(|(name, _)| name == "istio-token") {
                    true => "the first one is asked for with the token",
                    false => {
                        "and there is no token to ask for one: put the istio-token of `istioctl x workload entry \
                         configure` into the bundle"
                    }
                };
                (None, format!("{error:#}: {next}"))
            }
        };
        Ok(Self {
            config: path.to_owned(),
            bundle,
            identity: config.paths.identity(),
            import,
            credentials,
            certificate,
        })
    }

    fn files(&self) -> Vec<(PathBuf, &str)> {
        let bundle = self
            .import
            .bundle
            .files()
            .map(|(name, text)| (self.bundle.join(name), text));
        let mut files = vec![(self.config.clone(), self.import.config.as_str())];
        files.extend(bundle);
        files
    }

    fn report(&self, host: &Host) -> Result<Report> {
        let files: Result<Vec<File>> = self
            .files()
            .into_iter()
            .map(|(path, text)| File::compare(host, path, text))
            .collect();
        Ok(Report {
            files: files?,
            settings: self.import.notes.clone(),
            certificate: self.certificate.clone(),
        })
    }

    /// The configuration last: a start in between finds either none or all of it.
    fn write(&self, host: &Host) -> Result<()> {
        // What is above it may be anybody's, and is made with this mode only where it is missing.
        host.make_directory(&self.bundle, DIRECTORY_MODE, None)?;
        if let Some(credentials) = &self.credentials {
            identity::save(host, &self.identity, credentials)?;
        }
        let files = self.files();
        let (config, bundle) = files.split_first().context("there is nothing to write")?;
        for (path, text) in bundle.iter().chain([config]) {
            host.write(path, text, FILE_MODE, None)?;
        }
        Ok(())
    }
}

/// The certificate that it was given, when it is of any use to us.
fn credentials(taken: Option<Certificate>, import: &Import, membership: &Membership) -> Result<Credentials> {
    let Certificate { key, chain } = taken.context("it has no certificate")?;
    let roots = import.bundle.files().find(|(name, _)| *name == "root-cert.pem");
    let roots = roots.map_or("", |(_, text)| text);
    let credentials = identity::credentials(key, &chain, roots).context("its certificate is of no use")?;
    anyhow::ensure!(
        credentials.spiffe_id == membership.spiffe_id,
        "its certificate is of {}, and this VM is {}",
        credentials.spiffe_id,
        membership.spiffe_id
    );
    anyhow::ensure!(credentials.valid_at(SystemTime::now()), "its certificate is over");
    Ok(credentials)
}

#[cfg(test)]
mod tests;
