//! `up`: from a bare VM to a call, in one command. Each step leaves what the next `up` goes on from.
//!
//! ```text
//! source → who this VM is → Envoy's pin → configuration → Envoy → check → plan → start → calls
//! ```

mod calls;
mod configuration;
mod phase;
mod questions;
mod services;
mod source;
#[cfg(test)]
mod tests;
mod unit;

pub(super) use configuration::copies;
pub(super) use unit::{UNIT, is_installed, systemctl};

use std::io::{IsTerminal, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::unistd::{getgid, setgid};

use super::configuration::ConfigSource;
use super::{Outcome, check, plan, print, take_proxy_group, usage};
use crate::config::{Config, parse_duration};
use crate::envoy::{self, Located};
use crate::facts::Membership;
use crate::host::{Host, blocking};
use crate::join::Join;
use crate::part::{Site, Units};
use configuration::{File, Settings};
use phase::Phase;
use source::{EnvoyArguments, SourceArguments, in_arguments};

/// Mode of paths.state, the unit's StateDirectoryMode=.
const STATE_MODE: u32 = 0o711;

/// Options of `up`.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    envoy: EnvoyArguments,
    /// Write over a configuration that says otherwise, and keep a copy of it beside it.
    #[arg(long)]
    force: bool,
    /// Start without asking.
    #[arg(short, long)]
    yes: bool,
    /// Time that this VM may take to serve.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    within: Duration,
    /// Service that is called in the end; default: a service of the VM's namespace.
    #[arg(long, value_name = "HOST:PORT")]
    call: Option<String>,
}

pub(super) async fn run(path: &Path, options: &Options) -> Result<Outcome> {
    let host = Host::system();
    // The rules let a process of group istio-proxy pass: it is left for the calls in the end.
    let own_group = getgid();
    let _ = take_proxy_group();
    let prepared = Box::pin(prepare(path, &host, options)).await?;
    let Prepared {
        site,
        join,
        membership,
        is_new,
    } = &prepared;
    fetch_envoy(site).await?;
    examine(path).await?;
    let plan::Summary { text, is_settled } = plan::summary(site, join).await?;
    print(&text)?;
    // Where nothing is to change there is nothing to agree to.
    let asks = !options.yes && (*is_new || !is_settled);
    if asks && !agreed()? {
        print("Nothing has been started: `istio-vm-agent up` goes on from here.\n")?;
        return Ok(Outcome::Wrong);
    }
    if !unit::start(&host, path, &site.config, *is_new).await? {
        print(&format!(
            "No systemd with istio-vm-agent.service is here: have whatever keeps programs running on this machine start \
             `istio-vm-agent run --config {}`, then `istio-vm-agent up` again, which waits for it and calls.\n",
            path.display()
        ))?;
        return Ok(Outcome::Fine);
    }
    unit::wait(&host, &site.config, options.within).await?;
    setgid(own_group).context("failed to leave group istio-proxy")?;
    let outcome = calls::make(site, membership, options.call.as_deref()).await;
    print(&format!(
        "This VM is {} in the mesh. Next:\n  istio-vm-agent status             how it is\n  \
         istio-vm-agent explain NAME:PORT  why a call fails\n  istio-vm-agent down               leaves the mesh\n",
        membership.spiffe_id
    ))?;
    outcome
}

/// A configuration that is in its place, and whose source has said who this VM is.
struct Prepared {
    site: Site,
    join: Join,
    membership: Membership,
    /// True when the configuration was written just now.
    is_new: bool,
}

async fn prepare(path: &Path, host: &Host, options: &Options) -> Result<Prepared> {
    let file = File::read(host, path)?;
    let given = match options.source.table()? {
        None if !file.is_there() && !ConfigSource::new(path, host)?.any().await? => Some(asked(host, &options.source)?),
        given => given,
    };
    let Some(table) = given else {
        // Both are parts of the configuration that is there, or of none.
        options.source.expect_none()?;
        options.envoy.expect_none()?;
        let found = ConfigSource::new(path, host)?.find().await?;
        let (join, membership) = known(&found.config, host).await?;
        return Ok(Prepared::of(host, found.config, join, membership, false));
    };
    options.envoy.expect_program(host)?;
    let Settings {
        program,
        of_envoy,
        rest,
    } = file.settings();
    let parsed = Config::parse(path, &format!("{table}\n{rest}"));
    let config = parsed.map_err(|error| in_arguments(error.into(), path))?;
    let (join, membership) = known(&config, host).await.map_err(|error| in_arguments(error, path))?;
    if let Some(there) = file.that_says(&config, &options.envoy)? {
        return Ok(Prepared::of(host, there, join, membership, false));
    }
    file.expect_replaceable(options.force)?;
    // With a file that the unit doesn't see the next `up` would have to be told to forget this one.
    check::expect_seen(host, &config, path)?;
    let envoy = match options.envoy.kept(program) {
        Some(program) => format!("[envoy]\n{program}"),
        None => options.envoy.table(host, &config, &join, &membership).await?,
    };
    let text = format!("{table}\n{envoy}{of_envoy}\n{rest}");
    let config = Config::parse(path, &text)?;
    check::expect_seen(host, &config, path)?;
    let kept = file.write(host, &text)?;
    let mut phase = Phase::begin("Configuration")?;
    phase.end(&match kept {
        Some(copy) => format!("{}; the one before is {}", path.display(), copy.display()),
        None => path.display().to_string(),
    })?;
    Ok(Prepared::of(host, config, join, membership, true))
}

impl Prepared {
    fn of(host: &Host, config: Config, join: Join, membership: Membership, is_new: bool) -> Self {
        Self {
            site: Site {
                host: host.clone(),
                config,
                units: Units::default(),
            },
            join,
            membership,
            is_new,
        }
    }
}

/// The source's answer to who this VM is.
async fn known(config: &Config, host: &Host) -> Result<(Join, Membership)> {
    let mut phase = Phase::begin("Source")?;
    let join = Join::open(config, host)?;
    phase.tell(&join.source())?;
    join.check()?;
    let membership = join.fetch().await?;
    phase.end(&format!(
        "{}: {}, istiod at {}",
        join.source(),
        membership.spiffe_id,
        membership.discovery_address
    ))?;
    Ok((join, membership))
}

fn is_interactive() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

fn asked(host: &Host, given: &SourceArguments) -> Result<String> {
    if !is_interactive() {
        return Err(usage(
            "where does this VM join? Say it by one of --gke, --server, --kubeconfig (each with --workload-group \
             NAMESPACE/NAME), --directory and --https, or run `istio-vm-agent up` in a terminal, where it asks",
        ));
    }
    questions::source(host, given.clone(), &mut stdin().lock(), &mut stdout())
}

fn agreed() -> Result<bool> {
    if !is_interactive() {
        return Err(usage("nobody is here to agree to that: add --yes"));
    }
    questions::agreement(&mut stdin().lock(), &mut stdout())
}

/// Has the configured program here, and shows how much of it has come.
async fn fetch_envoy(site: &Site) -> Result<()> {
    let options = envoy::Options::new(site.host.clone(), &site.config, None);
    let mut phase = Phase::begin("Envoy")?;
    let source = site.config.envoy.source();
    phase.tell(&source.to_string())?;
    let looking = options.clone();
    let path: PathBuf = match blocking(move || Ok(envoy::locate(&looking))).await? {
        Located::Here(path) => path,
        Located::ToFetch(_) => {
            // As its unit makes it: Envoy's user passes through it, whatever the umask of who calls.
            let state = &site.config.paths.state;
            if !site.host.exists(state) {
                site.host.make_directory(state, STATE_MODE, None)?;
            }
            let of = source.to_string();
            envoy::fetch(&options, &mut |progress| phase.bar(&of, progress)).await?
        }
    };
    phase.end(&format!("{source}, at {}", path.display()))
}

/// Prints the findings of the check that aren't fine.
async fn examine(path: &Path) -> Result<()> {
    let mut phase = Phase::begin("Check")?;
    let started = SystemTime::now();
    let report = check::report(path).await?;
    let took = started.elapsed().unwrap_or_default();
    phase.end(&format!("{}, in {:.1} s", report.counts, took.as_secs_f64()))?;
    print(&report.text)?;
    ensure!(
        report.failed.is_empty(),
        "{} would keep this VM from joining: mend that as `fix` says, then `istio-vm-agent up` again",
        report.failed
    );
    Ok(())
}
