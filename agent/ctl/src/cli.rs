//! The command line.
//!
//! Exit codes: 0 done, or nothing to do · 1 refused, failed, or not as it should be · 64 usage.

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads and writes packaging/completions")]
mod completions;
#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads the documents")]
mod documented;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use futures_util::future::join_all;
use tokio::runtime::Runtime;

use crate::cluster::Cluster;
use crate::init;
use crate::interrupt::{Interrupt, Interrupted};
use crate::migration::{self, Entry, Migration, Share};
use crate::output::{self, Format, Output, Record};
use crate::report;
use crate::rights;
use crate::verbs::{self, Change, Operation};

/// BSD's EX_USAGE (sysexits.h).
const USAGE: u8 = 64;

/// Moves a service of an Istio mesh from a VM to pods, in several clusters at once, and back.
#[derive(Debug, Parser)]
#[command(name = "istio-vm-ctl", version, arg_required_else_help = true)]
struct Arguments {
    /// The file that says what migrates.
    #[arg(long, short, global = true, default_value = "migration.toml", value_name = "FILE")]
    file: PathBuf,
    /// Print one JSON object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the file from what the clusters hold and from the VM's configuration, or print the pods.
    Init(Box<init::Arguments>),
    /// Print what is in the way and which objects would be made; change nothing.
    Plan,
    /// Ask who has both sides, and compare their answers; change nothing.
    Verify,
    /// Make the objects, with all calls to the VM.
    Apply(How),
    /// Send a share of the calls to the pods, in all clusters or in none.
    Shift {
        /// Percent of the calls.
        share: Share,
        #[command(flatten)]
        how: How,
    },
    /// Go through the steps of the file, each held until Prometheus shows that the pods are good.
    Run {
        /// Don't compare the answers of VM and pods before; it is printed why.
        #[arg(long, value_name = "WHY")]
        skip_verify: Option<String>,
        /// Write a page of Markdown about it at its end, and a picture beside that.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Write the page and the picture of a run from the lines that `run --json` printed.
    Report {
        /// The lines.
        lines: PathBuf,
        /// The page; the picture is beside it, with the ending .svg.
        #[arg(long, value_name = "FILE", default_value = "run.md")]
        to: PathBuf,
    },
    /// Stop a run of anybody, at its present share.
    Pause,
    /// Send all calls to the VM, in every cluster that can be reached.
    Return {
        /// Don't ask whether there is a VM.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        how: How,
    },
    /// Send all calls to the pods.
    Complete(How),
    /// Take the VM out of the mesh, and remove what only it needs; there is no way back.
    Retire {
        /// Print who still calls the VM; change nothing.
        #[arg(long)]
        check: bool,
    },
    /// Print where each cluster stands.
    Status,
    /// Bring all calls back and remove the objects.
    Undo {
        /// Have the API servers check it, and change nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Print the Roles that this program needs in each cluster, for `kubectl apply`.
    Role {
        /// Who is to have them, as the API server names them.
        #[arg(long, value_name = "NAME")]
        user: String,
        /// Only those of this cluster.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
}

/// The ways of a change.
#[derive(clap::Args, Clone, Copy, Debug)]
struct How {
    /// Have the API servers check it, and change nothing.
    #[arg(long, conflicts_with = "print")]
    dry_run: bool,
    /// Print the objects of each cluster as YAML, and change nothing.
    #[arg(long)]
    print: bool,
}

impl How {
    fn change(self) -> Change {
        match self {
            Self { print: true, .. } => Change::Printed,
            Self { dry_run: true, .. } => Change::DryRun,
            Self { .. } => Change::Made,
        }
    }
}

/// Runs the program as it was called.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match execute(arguments) {
        Ok(()) if output::failure().is_none() => ExitCode::SUCCESS,
        Ok(()) => {
            let why = output::failure().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "failed to write to stdout: {why}");
            ExitCode::FAILURE
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{}", output::printable(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

fn execute(arguments: Arguments) -> Result<()> {
    // Another part of the program may have installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = execute_on(&runtime, arguments);
    // A plugin that hangs has a thread of its own.
    runtime.shutdown_background();
    ended
}

fn execute_on(runtime: &Runtime, arguments: Arguments) -> Result<()> {
    if let Verb::Init(wanted) = &arguments.verb {
        return runtime.block_on(init::run(wanted, &arguments.file));
    }
    if let Verb::Report { lines, to } = &arguments.verb {
        return report::of_file(lines, to);
    }
    let migration = migration::read(&arguments.file)?;
    if let Verb::Role { user, cluster } = &arguments.verb {
        return print_roles(&migration, user, cluster.as_deref());
    }
    let format = if arguments.json { Format::Json } else { Format::Text };
    static RECORD: Record = Record::new(Vec::new());
    let is_reported = matches!(&arguments.verb, Verb::Run { report: Some(_), .. });
    let record = is_reported.then_some(&RECORD);
    runtime.block_on(perform(arguments.verb, migration, Output { format, record }))
}

async fn perform(verb: Verb, migration: Migration, output: Output) -> Result<()> {
    let interrupt = Interrupt::new()?;
    let clusters = join_all(migration.clusters.iter().map(Cluster::new));
    let clusters = interrupt.unless(clusters).await?;
    let mut operation = Operation {
        migration,
        clusters,
        output,
        change: Change::Made,
        interrupt,
    };
    match Box::pin(execute_verb(verb, &mut operation)).await {
        Err(error) if error.is::<Interrupted>() => Err(verbs::interrupted(&operation).await),
        ended => ended,
    }
}

async fn execute_verb(verb: Verb, operation: &mut Operation) -> Result<()> {
    match verb {
        Verb::Plan => operation.interrupt.unless(verbs::plan(operation)).await?,
        Verb::Status => operation.interrupt.unless(verbs::status(operation)).await?,
        Verb::Verify => Box::pin(operation.interrupt.unless(verbs::verify(operation))).await?,
        Verb::Run { skip_verify, report } => {
            let ended = verbs::run(operation, skip_verify.as_deref()).await;
            let written = report.map_or(Ok(()), |page| report::of_record(operation.output.record, &page));
            // A run that was never judged has nothing to report, and says itself why.
            ended.and(written)
        }
        Verb::Pause => verbs::pause(operation).await,
        Verb::Apply(how) => {
            operation.change = how.change();
            verbs::apply(operation).await
        }
        Verb::Shift { share, how } => {
            operation.change = how.change();
            verbs::shift(operation, share, None).await.map(drop)
        }
        Verb::Complete(how) => {
            operation.change = how.change();
            verbs::shift(operation, Share::ALL, None).await.map(drop)
        }
        Verb::Return { force, how } => {
            operation.change = how.change();
            verbs::take_back(operation, force).await
        }
        Verb::Retire { check } => verbs::retire(operation, check).await,
        Verb::Undo { dry_run } => {
            operation.change = if dry_run { Change::DryRun } else { Change::Made };
            verbs::undo(operation).await
        }
        Verb::Init(_) | Verb::Report { .. } | Verb::Role { .. } => Ok(()),
    }
}

fn print_roles(migration: &Migration, user: &str, cluster: Option<&str>) -> Result<()> {
    let is_meant = |entry: &&Entry| cluster.is_none_or(|name| name == entry.name.as_str());
    if !migration.clusters.iter().any(|entry| is_meant(&entry)) {
        bail!("the file has no cluster {}", cluster.unwrap_or_default());
    }
    for entry in migration.clusters.iter().filter(is_meant) {
        for object in rights::roles(migration, entry, user) {
            output::document(&format!("---\n# {}\n{}", entry.name, serde_saphyr::to_string(&object)?));
        }
    }
    Ok(())
}
