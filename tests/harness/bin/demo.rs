//! `make demo`: the main job on real parts. A VM (a network namespace) joins a mesh on this machine with its
//! application in a container, is called and calls over mTLS, says how it is, and leaves as it came.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

use anyhow::{Context, Result};
use e2e::calls::Calls;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::snapshot::Snapshot;
use e2e::vm::{Application, Settings};

fn main() -> Result<()> {
    let settings = Settings {
        application: Application::Container,
        ..Settings::default()
    };
    println!("Starting namespaces, a stand-in istiod, a pod with its own Envoy, dockerd and a registry …");
    with_mesh(Kind::StandIn, settings, |mesh| tour(mesh))?;
    println!("\nNothing is left behind.");
    Ok(())
}

fn tour(mesh: &Mesh) -> Result<()> {
    print("What joining would change on the VM", &verb(mesh, "plan")?);
    let before = Snapshot::of(&mesh.network, Host::Vm, mesh.vm.etc())?;

    println!("\n$ istio-vm-agent run");
    let start = std::time::Instant::now();
    let mut agent = mesh.join()?;
    println!(
        "ready and healthy after {:.1} s, image pull included",
        start.elapsed().as_secs_f64()
    );
    print("How it is", &verb(mesh, "status")?);

    report(
        "pod → VM:  200 calls to productcatalogservice",
        &mesh.calls_to_the_vm().run(&mesh.network, Host::Pod)?,
    )?;
    report(
        "VM → pod:  200 calls to cartservice, by name",
        &mesh.calls_to_the_pod().run(&mesh.network, Host::Vm)?,
    )?;

    println!("\n$ systemctl stop istio-vm-agent");
    agent.stop()?;
    let after = Snapshot::of(&mesh.network, Host::Vm, mesh.vm.etc())?;
    before.expect_same(&after)?;
    println!("hosts file, netfilter objects, rules and routes are as before");
    Ok(())
}

fn verb(mesh: &Mesh, verb: &str) -> Result<String> {
    println!("\n$ istio-vm-agent {verb}");
    let output = mesh.vm.agent(&mesh.network, &[verb])?;
    Ok(String::from_utf8(output.stdout)?)
}

fn print(title: &str, text: &str) {
    println!("# {title}\n{text}");
}

fn report(title: &str, calls: &Calls) -> Result<()> {
    calls.expect_all_answered()?;
    let caller = calls
        .answered()
        .find_map(|call| call.caller.clone())
        .context("no caller was seen: no mTLS")?;
    let id = caller
        .split(';')
        .find(|part| part.starts_with("URI="))
        .unwrap_or(&caller);
    println!("{title}: {calls}; the server saw {id}");
    Ok(())
}
