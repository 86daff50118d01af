//! Calls both ways, over mTLS, by name.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::bundle;
use e2e::calls::Load;
use e2e::mesh::{Mesh, with_mesh};
use e2e::network::{Host, Network};
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::both;

pub(crate) fn trials() -> Vec<Trial> {
    let runs_as = |application| Settings {
        application,
        ..Settings::default()
    };
    let backend = |backend| Settings {
        backend,
        ..Settings::default()
    };
    [
        both("200 calls both ways, the application in a container", move |kind| {
            with_mesh(kind, runs_as(Application::Container), joined)
        }),
        both(
            "200 calls both ways, beside a dockerd that publishes on loopback alone",
            move |kind| {
                let settings = Settings {
                    docker_config: r#"{ "ip": "127.0.0.1" }"#,
                    ..runs_as(Application::Container)
                };
                with_mesh(kind, settings, joined)
            },
        ),
        both(
            "100 of 100 calls by name and by address, from containers on every kind of network",
            move |kind| with_mesh(kind, runs_as(Application::Container), from_every_network),
        ),
        both(
            "200 calls both ways, the application in a container on the host's network",
            move |kind| with_mesh(kind, runs_as(Application::HostContainer), joined),
        ),
        both(
            "200 calls both ways, the application as a process, by nftables",
            move |kind| with_mesh(kind, backend("nftables"), joined),
        ),
        both(
            "200 calls both ways, the application as a process, by iptables",
            move |kind| with_mesh(kind, backend("iptables"), joined),
        ),
        both(
            "calls both ways, and to a service on the port of Envoy's listener for the container",
            move |kind| with_mesh(kind, runs_as(Application::Container), to_the_containers_listener),
        ),
        both(
            "IPv6 in a mesh of IPv4: calls out go their way, calls in are refused",
            |kind| with_mesh(kind, Settings::default(), over_ipv6),
        ),
        both(
            "the access log is in the agent's log, with the caller's SPIFFE id",
            |kind| with_mesh(kind, Settings::default(), logged),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn joined(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    both_ways(mesh)
}

/// Docker's default network, one of before the agent, and one of after it whose bridge has a name of its own.
fn from_every_network(mesh: &mut Mesh) -> Result<()> {
    let create = |mesh: &Mesh, name: &str, bridge: &str| {
        let bridge = format!("com.docker.network.bridge.name={bridge}");
        mesh.vm.docker()?.cli(&["network", "create", "--opt", &bridge, name])
    };
    create(mesh, "early", "br-early")?;
    let _agent = mesh.join()?;
    create(mesh, "late", "late0")?;
    eventually("rules for all bridges", PATIENCE, || {
        let table = ["list", "table", "inet", "istio_vm_agent"];
        let rules = mesh.network.run(Host::Vm, "nft", &table)?;
        let bridges = ["docker0", "br-early", "late0"];
        let missing = bridges
            .iter()
            .find(|bridge| !rules.contains(&format!("iifname \"{bridge}\"")));
        ensure!(missing.is_none(), "none for {missing:?}");
        Ok(())
    })?;
    let by_name = mesh.calls_to_the_pod().as_fast_as_answered(100, 4);
    let (name, port) = by_name.target.split_once(':').context("a target without a port")?;
    let found = mesh.network.run(Host::Vm, "getent", &["ahostsv4", name])?;
    let address = found.split_whitespace().next().context("no address of the service")?;
    let by_address = Load {
        target: format!("{address}:{port}"),
        authority: Some(by_name.target.clone()),
        ..by_name.clone()
    };
    let docker = mesh.vm.docker()?;
    for network in ["bridge", "early", "late"] {
        let container = format!("on-{network}");
        docker.cli(&[
            "run",
            "--detach",
            "--name",
            &container,
            "--network",
            network,
            &docker.image(),
        ])?;
        for load in [&by_name, &by_address] {
            let calls = load.run_in(&mesh.network, docker, &container)?;
            calls.expect_all_answered()?;
            calls.expect_caller(bundle::SPIFFE_ID)?;
        }
    }
    Ok(())
}

pub(crate) fn both_ways(mesh: &Mesh) -> Result<()> {
    mesh.expect_calls()?.expect_caller(e2e::pod::SPIFFE_ID)?;
    let calls = mesh.calls_to_the_pod().run(&mesh.network, Host::Vm)?;
    calls.expect_all_answered()?;
    calls.expect_caller(bundle::SPIFFE_ID)
}

/// istiod knows nothing of that listener, and keeps no service from its port: Envoy has both.
fn to_the_containers_listener(mesh: &mut Mesh) -> Result<()> {
    const PORT: u16 = 15007;
    const HOST: &str = "outside.example";
    let _service = mesh.start_service_outside(HOST, PORT)?;
    let _agent = mesh.join()?;
    if mesh.control_plane.stand_in().is_err() {
        eventually("Envoy to have the service", PATIENCE, || {
            let output = mesh.vm.agent(&mesh.network, &["proxy", "clusters"])?;
            ensure!(String::from_utf8_lossy(&output.stdout).contains(HOST), "{output:?}");
            Ok(())
        })?;
    }
    let calls = Load {
        authority: Some(format!("{HOST}:{PORT}")),
        ..Load::on(Network::address(Host::Outside, PORT))
    };
    calls.run(&mesh.network, Host::Vm)?.expect_all_answered()?;
    mesh.expect_calls()?;
    let (status, _) = mesh.vm.status(&mesh.network)?;
    ensure!(status["xds"]["nacks"].as_array().is_some_and(Vec::is_empty), "{status}");
    Ok(())
}

/// istiod configures /dev/stdout as the access log, which Envoy may open only if its user owns what that is.
fn logged(mesh: &mut Mesh) -> Result<()> {
    const CALLS: u32 = 20;
    let agent = mesh.join()?;
    mesh.wait_until_called()?;
    let calls = mesh.calls_to_the_vm().at_rate(CALLS, Duration::from_secs(1));
    calls.run(&mesh.network, Host::Pod)?.expect_all_answered()?;
    let caller = format!("caller={}", e2e::pod::SPIFFE_ID);
    eventually("the calls in the log", PATIENCE, || {
        let log = agent.output();
        let lines = log.lines().filter(|line| {
            line.contains("envoy::access")
                && line.contains("ProductCatalogService/GetProduct")
                && line.contains(&caller)
        });
        let lines = lines.count();
        ensure!(lines >= CALLS as usize, "{lines} of {CALLS} calls are in the log");
        Ok(())
    })?;
    let (status, _) = mesh.vm.status(&mesh.network)?;
    ensure!(status["xds"]["nacks"].as_array().is_some_and(Vec::is_empty), "{status}");
    Ok(())
}

/// istiod gives Envoy listeners for IPv4 only, unless the mesh is dual-stack.
fn over_ipv6(mesh: &mut Mesh) -> Result<()> {
    const SHOP: u16 = 8099;
    let shop = ["--port", &SHOP.to_string()];
    let _shop = mesh
        .network
        .spawn(Host::Outside, "shop", e2e::programs::productcatalog()?, &shop)?;
    let calls = |host: Host, port| Load::on(format!("[{}]:{port}", host.ipv6())).at_rate(10, Duration::from_secs(1));
    let (out, inbound) = (calls(Host::Outside, SHOP), calls(Host::Vm, 3550));
    for (calls, from) in [(&out, Host::Vm), (&inbound, Host::Outside)] {
        eventually("an answer over IPv6", PATIENCE, || {
            calls.run(&mesh.network, from)?.expect_all_answered()
        })?;
    }
    let _agent = mesh.join()?;
    out.run(&mesh.network, Host::Vm)?.expect_all_answered()?;
    let past_envoy = inbound.run(&mesh.network, Host::Outside)?;
    ensure!(past_envoy.answered().next().is_none(), "{past_envoy}");
    Ok(())
}
