//! `make demo` and `make playground`: a mesh on this machine, and beside it a VM (a network namespace) that is in no mesh yet.
//! The playground is a shell on that VM, with a page of what to type there; the demo is a shell that gets that page typed.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

#[path = "demo/vm.rs"]
mod vm;

use std::process::{Command, ExitCode};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::eventually;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::registry::Registry;
use e2e::snapshot::Snapshot;
use e2e::vm::Settings;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

/// The exit code of shells for a program that SIGINT ended.
const INTERRUPTED: u8 = 130;
/// Between two looks at the shell.
const POLL: Duration = Duration::from_millis(50);
/// The longest wait for a shell that was hung up on to give the terminal back.
const FAREWELL: Duration = Duration::from_secs(5);

#[derive(Debug, Parser)]
struct Args {
    /// Leave it to you to type the commands, in a shell on the VM.
    #[arg(long)]
    playground: bool,
}

/// The reason why all is taken down.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The shell has ended.
    Shell,
    /// SIGINT, SIGTERM or SIGHUP.
    Interrupt,
}

fn main() -> ExitCode {
    let args = Args::parse();
    println!("Starting namespaces, a stand-in istiod, a pod with its own Envoy, and a registry with Envoy's image …");
    match run(args.playground) {
        Ok(end) => {
            println!("\nNothing is left behind.");
            ExitCode::from(if matches!(end, End::Interrupt) { INTERRUPTED } else { 0 })
        }
        Err(error) => {
            println!("\nThis failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(playground: bool) -> Result<End> {
    let interrupts = interrupts()?;
    let mut end = End::Interrupt;
    let ended = with_mesh(Kind::StandIn, Settings::default(), |mesh| {
        end = show(mesh, playground, &interrupts)?;
        Ok(())
    });
    match ended {
        // A Ctrl-C also ends the programs that the mesh is made by.
        Err(error) if interrupts.try_recv().is_err() => Err(error),
        _ => Ok(end),
    }
}

fn show(mesh: &Mesh, playground: bool, interrupts: &Receiver<()>) -> Result<End> {
    let registry = Registry::start(&mesh.network, Host::Vm, &mesh.vm.envoy())?;
    vm::furnish(mesh)?;
    let page = vm::page(&registry.image());
    if playground {
        println!(
            "\nThe mesh stands, and this shell is on the VM, as root. Try, in this order:\n\n{page}\n\
             `exit` or Ctrl-D takes all of it down.\n"
        );
        return run_shell(vm::shell(mesh), interrupts).map(|(end, _)| end);
    }
    let before = Snapshot::of(&mesh.network, Host::Vm, EtcView::Plain)?;
    let (end, is_fine) = run_shell(vm::typist(mesh, &page)?, interrupts)?;
    if matches!(end, End::Shell) {
        ensure!(is_fine, "the last command above failed");
        before.expect_same(&Snapshot::of(&mesh.network, Host::Vm, EtcView::Plain)?)?;
        println!("\n/etc/hosts, netfilter's objects, routing rules and routes of the VM are as before.");
    }
    Ok(end)
}

/// Runs a shell until it ends or a signal comes; `true`: it ended without an error.
fn run_shell(mut command: Command, interrupts: &Receiver<()>) -> Result<(End, bool)> {
    let mut shell = command.spawn().context("failed to start bash")?;
    loop {
        if let Some(status) = shell.try_wait()? {
            return Ok((End::Shell, status.success()));
        }
        if interrupts.recv_timeout(POLL).is_ok() {
            break;
        }
    }
    println!("\nInterrupted: taking all of it down …");
    let pid = i32::try_from(shell.id()).ok().and_then(Pid::from_raw);
    kill_process(pid.context("bash has no pid")?, Signal::HUP)?;
    // What else runs there, and a shell that stays, is ended with the VM.
    let _ = eventually("the end of bash", FAREWELL, || shell.try_wait()?.context("it runs"));
    Ok((End::Interrupt, false))
}

/// A message for each SIGINT, SIGTERM and SIGHUP from now on: none of them ends this process where it stands.
fn interrupts() -> Result<Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let [mut int, mut term, mut hup] = {
        let _entered = runtime.enter();
        let [int, term, hup] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        [int?, term?, hup?]
    };
    let (sender, receiver) = channel();
    thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = int.recv() => {}
                    _ = term.recv() => {}
                    _ = hup.recv() => {}
                }
                // The receiver lives as long as this process is not about to end.
                let _ = sender.send(());
            }
        });
    });
    Ok(receiver)
}
