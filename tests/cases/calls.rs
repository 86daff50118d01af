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
use rustix::process::Signal;

use crate::{both, note};

/// The container of the project of docker-compose.
const COMPOSE_CONTAINER: &str = "on-compose";

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
            move |kind| with_mesh(kind, runs_as(Application::Container), from_every_kind_of_network),
        ),
        both(
            "100 of 100 calls by name and by address, from containers where Docker's default network is another bridge",
            move |kind| with_mesh(kind, runs_as(Application::Container), from_a_renamed_network),
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

fn from_every_kind_of_network(mesh: &mut Mesh) -> Result<()> {
    from_every_network(mesh, "docker0")
}

fn joined(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    both_ways(mesh)
}

/// Docker's default network, whose bridge this is, one of before the agent, one of after it whose bridge has a name of its
/// own, and a project of docker-compose.
fn from_every_network(mesh: &Mesh, default: &str) -> Result<()> {
    let docker = mesh.vm.docker()?;
    let early = docker.cli(&["network", "create", "early"])?;
    let _agent = mesh.join()?;
    let named = "com.docker.network.bridge.name=late0";
    docker.cli(&["network", "create", "--opt", named, "late"])?;
    docker.compose(COMPOSE_CONTAINER)?;
    let composed = docker.cli(&["network", "inspect", "--format", "{{.Id}}", "compose_default"])?;
    let bridges = [default, &bridge_of(&early), "late0", &bridge_of(&composed)].map(str::to_owned);
    eventually("rules for all bridges", PATIENCE, || {
        let table = ["list", "table", "inet", "istio_vm_agent"];
        let rules = mesh.network.run(Host::Vm, "nft", &table)?;
        let missing = bridges
            .iter()
            .find(|bridge| !rules.contains(&format!("iifname \"{bridge}\"")));
        ensure!(missing.is_none(), "none for {missing:?}");
        Ok(())
    })?;
    for network in ["bridge", "early", "late"] {
        let container = format!("on-{network}");
        let own = ["--name", &container, "--network", network, &docker.image()];
        docker.cli(&[&["run", "--detach"], &own[..]].concat())?;
        expect_calls_from(mesh, &container)?;
    }
    expect_calls_from(mesh, COMPOSE_CONTAINER)
}

/// The name that Docker gives the bridge of a network.
fn bridge_of(network: &str) -> String {
    format!("br-{}", &network[..network.len().min(12)])
}

/// 100 of 100 calls of a container's to the pod, by name and by address, come as this VM's.
fn expect_calls_from(mesh: &Mesh, container: &str) -> Result<()> {
    let by_name = mesh.calls_to_the_pod().as_fast_as_answered(100, 4);
    let (name, port) = by_name.target.split_once(':').context("a target without a port")?;
    let found = mesh.network.run(Host::Vm, "getent", &["ahostsv4", name])?;
    let address = found.split_whitespace().next().context("no address of the service")?;
    let by_address = Load {
        target: format!("{address}:{port}"),
        authority: Some(by_name.target.clone()),
        ..by_name.clone()
    };
    for (way, load) in [("name", by_name), ("address", by_address)] {
        let calls = load.run_in(&mesh.network, mesh.vm.docker()?, container)?;
        note(&format!("from the container {container}, by {way}"), &calls.to_string());
        calls.expect_all_answered()?;
        calls.expect_caller(bundle::SPIFFE_ID)?;
    }
    Ok(())
}

/// The same, with a bridge of the operator's in the place of docker0.
fn from_a_renamed_network(mesh: &mut Mesh) -> Result<()> {
    const BRIDGE: &str = "mesh0";
    let ip = |args: &str| {
        let args: Vec<_> = args.split(' ').collect();
        mesh.network.run(Host::Vm, "ip", &args)
    };
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("address add 172.30.0.1/16 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    mesh.vm.docker()?.reload(&format!("{{ \"bridge\": \"{BRIDGE}\" }}"))?;
    mesh.vm.restart_docker(&mesh.network, Signal::TERM)?;
    from_every_network(mesh, BRIDGE)
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
