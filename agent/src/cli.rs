//! The command line: what each verb does with the configuration, and the exit codes.
//!
//! 0 fine · 2 something to change (`plan --detailed-exitcode`) · 64 usage · 69 nothing to run yet (the unit) · 75 not to begin again (the unit) · 78 configuration · 1 anything else (`check` and `status`: something is wrong).

mod bugreport;
mod check;
#[cfg(test)]
mod completions;
mod config;
mod configuration;
mod dns;
mod dns_standby;
#[cfg(test)]
mod documented;
mod down;
mod explain;
mod exposure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod guard;
mod hold;
mod import;
mod manifests;
mod output;
mod plan;
mod proxy;
mod refusal;
mod reload;
mod remains;
mod revert;
mod root;
mod run;
mod status;
mod stopped;
mod unconfigured;
mod up;
mod upgrade;
mod version;
mod xds_standby;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, geteuid, setgid};
use sd_notify::NotifyState;

use crate::config::{ConfigError, DEFAULT_PATH, ports};
use crate::host::Host;
use crate::part::Units;
use crate::terminal::{indented, one_line};
use crate::{envoy, hosts, telemetry};
use output::{Form, Output, is_abandoned, print, print_printable};
use refusal::{usage, without_hidden};
use root::Need;

/// The unit that writes /etc/hosts.
const HOSTS_UNIT: &str = "istio-vm-agent-hosts.service";
/// The unit that answers DNS while the agent doesn't.
const DNS_UNIT: &str = "istio-vm-agent-dns.service";
/// The unit that Envoy is, of which there are two instances.
const ENVOY_UNIT: &str = "istio-vm-agent-envoy@.service";
/// The unit that holds the VM's place in the mesh while the agent doesn't.
const XDS_UNIT: &str = "istio-vm-agent-xds.service";
/// A verb found something wrong, and has printed it.
const FAILURE: u8 = 1;
/// Exit code of terraform's `plan -detailed-exitcode` for a plan that has changes.
const DIFFERS: u8 = 2;
/// BSD's EX_USAGE (sysexits.h).
const USAGE: u8 = 64;
/// BSD's EX_UNAVAILABLE; to the unit it is a success.
const UNAVAILABLE: u8 = 69;
/// BSD's EX_TEMPFAIL; to the unit it is a success, and the unit doesn't restart after it: the cloud takes the VM away, or root
/// ordered the end on port 15020.
const FOR_GOOD: u8 = 75;
/// BSD's EX_CONFIG; the unit doesn't restart after it.
const CONFIG: u8 = 78;

const AFTER_HELP: &str = "\
Examples:
  istio-vm-agent up --gke my-project/europe-west1/boutique --workload-group onlineboutique/productcatalog
  istio-vm-agent check --only names,IVA602
  istio-vm-agent status --wait ready=2m
  istio-vm-agent explain cartservice.onlineboutique:7070

Exit codes: 0 fine, 1 something is wrong, 2 something to change (plan --detailed-exitcode), 64 wrong arguments, 69 no configuration yet and 75 left for good (run, in its unit), 78 wrong configuration or bundle, with nothing touched. All of it is in istio-vm-agent(8).";

/// Makes this VM a member of an Istio mesh.
#[derive(Debug, Parser)]
#[command(
    name = "istio-vm-agent",
    version,
    arg_required_else_help = true,
    after_help = AFTER_HELP,
    max_term_width = 120
)]
struct Arguments {
    /// The configuration.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Form of the data on stdout.
    #[arg(short, long, global = true, value_enum, value_name = "FORM", default_value = "text")]
    output: Form,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Join the mesh and stay until SIGTERM (what the unit starts).
    Run {
        /// Have systemd start Envoy, as this unit.
        #[arg(long, hide = true, value_name = "UNIT")]
        envoy_unit: Option<String>,
        /// The unit that this is; commands run in units that end with it.
        #[arg(
            long,
            hide = true,
            value_name = "UNIT",
            requires = "envoy_unit",
            default_value = "istio-vm-agent.service"
        )]
        unit: String,
        /// Have systemd write /etc/hosts, by this unit.
        #[arg(
            long,
            hide = true,
            value_name = "UNIT",
            requires = "envoy_unit",
            default_value = HOSTS_UNIT
        )]
        hosts_unit: String,
        /// Have systemd start the standby for DNS, as this unit.
        #[arg(
            long,
            hide = true,
            value_name = "UNIT",
            requires = "envoy_unit",
            default_value = DNS_UNIT
        )]
        dns_unit: String,
        /// Have systemd start the standby for the VM's place in the mesh, as this unit.
        #[arg(
            long,
            hide = true,
            value_name = "UNIT",
            requires = "envoy_unit",
            default_value = XDS_UNIT
        )]
        xds_unit: String,
    },
    /// Join the mesh from nothing: write the configuration, get Envoy, check, plan, ask, start, wait, call.
    Up(Box<up::Options>),
    /// Leave the mesh and put the host back; the agent doesn't start at boot any more.
    Down(#[command(flatten)] down::Options),
    /// Say what would keep this VM from joining, and what to do about it. Changes nothing on this VM.
    Check(#[command(flatten)] check::CheckArguments),
    /// Judge the configuration and the bundle at hand, or show what is in effect. Changes nothing.
    Config {
        /// Verb below `config`.
        #[command(subcommand)]
        verb: config::ConfigVerb,
    },
    /// Show what `run` would change on this host: a summary, what is never touched, a diff. Changes nothing.
    Plan(#[command(flatten)] plan::Options),
    /// Have the running agent take up the configuration; a bad one is refused and changes nothing.
    Reload,
    /// Put the host back as it was, without a running agent.
    Revert,
    /// Take over what Istio's own agent (istio-sidecar) was told, and with --switch its place.
    Import(#[command(flatten)] import::Options),
    /// Say what is wrong first, then who this VM is and how each part of the agent is.
    Status(#[command(flatten)] status::Options),
    /// Say why a call from this VM or to it fails, from what is on this VM alone, and what to do. Changes nothing.
    Explain(#[command(flatten)] explain::Options),
    /// Ask the agent for a name, or for the name of an address, as programs on this VM do, and say who knows it.
    Dns {
        /// The name, or an address.
        name: String,
    },
    /// Show Envoy's side of the mesh as `istioctl proxy-config` does, without istiod, with `-o yaml` too. Shows no secrets.
    #[command(arg = output::with_yaml())]
    Proxy {
        /// Verb below `proxy`.
        #[command(subcommand)]
        verb: proxy::ProxyVerb,
    },
    /// Print what the cluster side needs for a group of VMs, for `kubectl apply -f -`. Asks no cluster.
    Manifests(Box<manifests::ManifestsArguments>),
    /// Put what is known of this VM into an archive, without secrets, for whoever is to find out what is wrong.
    Bugreport(#[command(flatten)] bugreport::Options),
    /// Print the versions of this program, of Envoy and of the agent that runs.
    Version,
    /// Put in the rules for calls to this VM, before there is an Envoy (for the unit, on boot).
    #[command(hide = true)]
    Guard {
        /// The agent's, whose configuration it is.
        unit: String,
    },
    /// Keep the mesh's ports for those who serve on them (for the unit).
    #[command(hide = true)]
    Hold {
        /// For whom; its user calls.
        holder: hold::Holder,
    },
    /// Keep a way back from an upgrade of the package, and take it (for the package and the unit).
    #[command(hide = true)]
    Upgrade {
        /// Verb below `upgrade`.
        #[command(subcommand)]
        verb: upgrade::UpgradeVerb,
    },
    /// Put the host back after a stop of this unit that no agent was there to see (for the unit).
    #[command(hide = true)]
    Stopped {
        /// The agent's.
        unit: String,
        /// Log of the unit that writes /etc/hosts.
        #[arg(long, value_name = "UNIT", default_value = HOSTS_UNIT)]
        hosts_unit: String,
    },
    /// Put the names that the agent has written down in its run directory into /etc/hosts (for the unit).
    #[command(hide = true)]
    Hosts {
        /// paths.run.
        run: PathBuf,
    },
    /// Answer DNS while the agent that has this run directory doesn't (for the unit).
    #[command(hide = true)]
    DnsStandby {
        /// paths.run.
        run: PathBuf,
    },
    /// Hold the VM's place in the mesh while the agent that has these directories doesn't (for the unit).
    #[command(hide = true)]
    XdsStandby {
        /// paths.run.
        run: PathBuf,
        /// paths.state.
        state: PathBuf,
    },
    /// Become the Envoy that the agent has written down in its run directory (for the unit).
    #[command(hide = true)]
    Envoy {
        /// paths.run.
        run: PathBuf,
    },
}

impl Verb {
    fn need(&self) -> Need {
        match self {
            Self::Up(_) | Self::Down(_) => Need::Host,
            Self::Status(_)
            | Self::Explain(_)
            | Self::Proxy { .. }
            | Self::Dns { .. }
            | Self::Reload
            | Self::Bugreport(_) => Need::Agent,
            Self::Config { .. } | Self::Plan(_) | Self::Revert | Self::Import(_) | Self::Manifests(_) => {
                Need::Configuration
            }
            _ => Need::Nothing,
        }
    }

    /// True where all that is printed is one document, in whose place another says why there is none.
    fn has_document(&self) -> bool {
        match self {
            Self::Plan(_)
            | Self::Reload
            | Self::Revert
            | Self::Status(_)
            | Self::Explain(_)
            | Self::Dns { .. }
            | Self::Proxy { .. }
            | Self::Manifests(_)
            | Self::Version => true,
            Self::Import(options) => options.has_document(),
            _ => false,
        }
    }
}

/// End of a verb that doesn't fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    /// Exit code 0.
    Fine,
    /// Exit code 1; what is wrong has been printed.
    Wrong,
    /// Exit code 78; what is wrong has been printed.
    Misconfigured,
    /// Exit code 2; `plan` found something to change, and was to tell by its code.
    Differs,
    /// Exit code 75; the agent has left the mesh, and is not to begin again.
    ForGood,
    /// Exit code 69; a fresh installation, started by its unit.
    Unconfigured,
}

/// Runs the verb of the process's arguments.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let error = without_hidden(error);
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    // One provider for the whole process; a second call finds the first one's.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ended = dispatch(&arguments);
    telemetry::flush();
    if let Some(error) = ended
        .as_ref()
        .err()
        .and_then(|error| error.downcast_ref::<clap::Error>())
    {
        let _ = error.print();
    } else if let Err(error) = &ended {
        let said = format!("{error:#}");
        let _ = writeln!(std::io::stderr(), "istio-vm-agent: {}", indented(&said));
        if arguments.output == Form::Json && arguments.verb.has_document() {
            let _ = refusal::document(error, code(&ended)).and_then(|document| print(&document));
        }
        // What `systemctl status` and a switch from Istio's agent show of a unit that failed.
        if matches!(arguments.verb, Verb::Run { .. }) {
            let _ = sd_notify::notify(&[NotifyState::Status(&one_line(&said))]);
        }
    }
    ExitCode::from(code(&ended))
}

/// The exit code of a verb.
fn code(ended: &anyhow::Result<Outcome>) -> u8 {
    match ended {
        Ok(Outcome::Fine) => 0,
        Ok(Outcome::Wrong) => FAILURE,
        Ok(Outcome::Differs) => DIFFERS,
        Ok(Outcome::Misconfigured) => CONFIG,
        Ok(Outcome::Unconfigured) => UNAVAILABLE,
        Ok(Outcome::ForGood) => FOR_GOOD,
        Err(error) if error.downcast_ref().is_some_and(ConfigError::is_final) => CONFIG,
        Err(error) if error.is::<clap::Error>() => USAGE,
        Err(_) => FAILURE,
    }
}

fn dispatch(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let Arguments {
        config,
        output: form,
        verb,
    } = arguments;
    let config = &std::path::absolute(config).context("--config")?;
    if !matches!(verb, Verb::Envoy { .. }) {
        keep_memory_private();
    }
    root::expect(verb.need(), config)?;
    let output = || form.of_every_verb();
    match verb {
        Verb::Run {
            envoy_unit,
            unit,
            hosts_unit,
            dns_unit,
            xds_unit,
        } => {
            let units = envoy_unit.as_deref().map(|envoy| Units {
                agent: Some(unit.clone()),
                dns: Some(dns_unit.clone()),
                envoy: Some(envoy.to_owned()),
                hosts: Some(hosts_unit.clone()),
                xds: Some(xds_unit.clone()),
            });
            run::run(config, units)
        }
        Verb::Up(options) => block_on(up::run(config, options)),
        Verb::Down(options) => block_on(down::run(config, *options)),
        Verb::Check(arguments) => block_on(check::run(config, output()?, arguments)),
        Verb::Config { verb } => block_on(config::run(config, output()?, *verb)),
        Verb::Plan(options) => block_on(plan::run(config, output()?, *options)),
        Verb::Reload => block_on(reload::run(config, output()?)),
        Verb::Revert => block_on(revert::run(config, output()?)),
        Verb::Import(options) => import::run(config, output()?, *options),
        Verb::Status(options) => block_on(status::run(config, output()?, *options)),
        Verb::Explain(options) => block_on(explain::run(config, output()?, options)),
        Verb::Dns { name } => block_on(dns::run(config, output()?, name)),
        Verb::Proxy { verb } => block_on(proxy::run(config, *form, verb)),
        Verb::Manifests(arguments) => block_on(manifests::run(config, output()?, arguments)),
        Verb::Guard { unit } => guard::run(config, unit),
        Verb::Hold { holder } => hold::run(*holder),
        Verb::Stopped { unit, hosts_unit } => block_on(stopped::run(config, unit, hosts_unit)),
        Verb::Upgrade { verb } => upgrade::run(verb, config),
        Verb::Hosts { run } => hosts::write_list(&Host::system(), run).map(|()| Outcome::Fine),
        Verb::DnsStandby { run } => dns_standby::run(run),
        Verb::XdsStandby { run, state } => xds_standby::run(run, state),
        Verb::Envoy { run } => Err(envoy::become_envoy(run)),
        Verb::Bugreport(options) => block_on(bugreport::run(config, output()?, options)),
        Verb::Version => block_on(version::run(config, output()?)),
    }
}

/// Runs one verb's waits on this thread, which has no runtime yet.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // A look-up that the verb waits for no more keeps nobody from its end.
    runtime.shutdown_background();
    done
}

/// Keys and tokens in this process's memory get into no core dump, nor does an Envoy's that it starts by itself; and no
/// program without rights of its own reads them. Its unit says so too: this holds for one that is started by hand.
fn keep_memory_private() {
    // Neither is refused: a limit may always be lowered.
    let _ = set_dumpable(false);
    let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
}

/// The rules let what leaves with group istio-proxy pass, so that our own calls are never sent to Envoy. What the agent
/// makes is of that group from then on, and where its mode says so, Envoy's to open.
/// Holds for all threads of the process.
fn take_proxy_group() -> anyhow::Result<()> {
    setgid(Gid::from_raw(ports::PROXY_GID)).with_context(|| {
        let remedy = match geteuid().is_root() {
            true => "`groupmod -g 1337 istio-proxy`, as the unit takes the group by its name",
            false => "run as root",
        };
        format!("failed to take group istio-proxy (1337): {remedy}")
    })
}

#[cfg(test)]
mod tests;
