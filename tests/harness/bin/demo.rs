//! `make demo`: the main job on real parts. A VM (a network namespace) joins a mesh on this machine with its
//! application in a container, is called and calls over mTLS, says how it is, and leaves as it came.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use std::process::ExitCode;

use anyhow::{Context, Result};
use e2e::calls::Calls;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::snapshot::Snapshot;
use e2e::vm::{Application, Settings};

fn main() -> ExitCode {
    let settings = Settings {
        application: Application::Container,
        ..Settings::default()
    };
    println!("Starting namespaces, a stand-in istiod, a pod with its own Envoy, dockerd and a registry …");
    let ended = with_mesh(Kind::StandIn, settings, |mesh| tour(mesh));
    match &ended {
        Ok(()) => println!("\nNothing is left behind."),
        Err(error) => println!("\nThe demo failed: {error:#}"),
    }
    ExitCode::from(u8::from(ended.is_err()))
}

fn tour(mesh: &Mesh) -> Result<()> {
    println!("\n$ istio-vm-agent plan");
    println!("{}", verb(mesh, "plan")?);
    let before = Snapshot::of(&mesh.network, Host::Vm, mesh.vm.etc())?;

    println!("$ istio-vm-agent run");
    let start = std::time::Instant::now();
    let mut agent = mesh.join()?;
    println!(
        "ready and healthy after {:.1} s, image pull included",
        start.elapsed().as_secs_f64()
    );
    println!("\n$ istio-vm-agent status\n{}", verb(mesh, "status")?);

    let inbound = mesh.expect_calls()?;
    report("pod → VM, to productcatalogservice", &inbound)?;
    let outbound = mesh.calls_to_the_pod().run(&mesh.network, Host::Vm)?;
    report("VM → pod, to cartservice by its name", &outbound)?;

    println!("\n$ systemctl stop istio-vm-agent");
    agent.stop()?;
    e2e::eventually("the host to be as before", e2e::PATIENCE, || {
        before.expect_same(&Snapshot::of(&mesh.network, Host::Vm, mesh.vm.etc())?)
    })?;
    println!("/etc/hosts, netfilter's objects, routing rules and routes are as before");
    Ok(())
}

fn verb(mesh: &Mesh, verb: &str) -> Result<String> {
    let output = mesh.vm.agent(&mesh.network, &[verb])?;
    Ok(String::from_utf8(output.stdout)?)
}

fn report(title: &str, calls: &Calls) -> Result<()> {
    calls.expect_all_answered()?;
    let caller = calls.answered().find_map(|call| call.caller.clone());
    let caller = caller.context("no caller was seen: no mTLS")?;
    let id = caller
        .split(';')
        .find(|part| part.starts_with("URI="))
        .unwrap_or(&caller);
    println!("{title}: {calls}, and the server saw {id}");
    Ok(())
}
