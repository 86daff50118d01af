//! Whoever leans on the agent's sockets gets neither its memory nor anybody's calls.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::process::resident;
use e2e::vm::Settings;
use e2e::{flood, http};
use libtest_mimic::Trial;

use crate::stand_in_only;

const UNIT: &str = include_str!("../../systemd/istio-vm-agent.service");
const STATUS: u16 = 15020;
const DNS: u16 = 15053;
const READINESS: u16 = 15021;
/// Of each flood: many times the places that there are.
const CONNECTIONS: usize = 500;
const SOCKETS: usize = 32;
const QUERIES: u16 = 5000;

pub(crate) fn trials() -> Vec<Trial> {
    vec![stand_in_only(
        "floods of 15020, 15053, SDS and xDS: memory stays below the unit's limit, and no call is lost",
        || with_mesh(Kind::StandIn, Settings::default(), |mesh| flooded(mesh)),
    )]
}

fn flooded(mesh: &Mesh) -> Result<()> {
    let agent = mesh.join()?;
    let roots = mesh.network.folder().join("roots.pem");
    fs::write(&roots, fs::read(mesh.vm.bundle().join("root-cert.pem"))?.repeat(100))?;
    let [sds, xds] = ["sds.sock", "xds.sock"].map(|socket| mesh.vm.run_folder().join(socket));
    let calls = mesh.start_calls(200)?;
    let held = thread::scope(|scope| {
        let secrets = scope.spawn(|| flood::secrets(&sds, SOCKETS, &roots));
        let configuration = scope.spawn(|| flood::configuration(&xds, SOCKETS));
        let user = scope.spawn(|| mesh.network.within(Host::Vm, by_a_user));
        let outside = mesh.network.within(Host::Outside, from_outside)?;
        Ok::<_, Error>((ended(secrets)?, ended(configuration)?, ended(user)?, outside))
    })?;
    others_are_served(mesh)?;
    calls.stop()?.expect_all_answered()?;
    drop(held);
    let (most, limit) = (resident(agent.pid(), "VmHWM")?, memory_limit()?);
    ensure!(
        most < limit,
        "the agent took {most} bytes, and its unit is given {limit}"
    );
    Ok(())
}

fn ended<T>(flood: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    flood.join().unwrap_or_else(|_| Err(anyhow!("a flood panicked")))
}

/// Heads that are long, answers that nobody reads, and heads that never end, which alone keep their places for sure.
fn from_outside() -> Result<[Vec<TcpStream>; 4]> {
    let to = |port| SocketAddr::new(IpAddr::V4(Host::Vm.ipv4()), port);
    flood::queries(to(DNS), QUERIES)?;
    let (head, line) = ("GET /healthz/ready HTTP/1.1\r\nhost: vm\r\n", "y".repeat(1000));
    let heads = flood::connections(
        to(STATUS),
        CONNECTIONS,
        head.as_bytes(),
        format!("x: {line}\r\n").as_bytes(),
    );
    let unread = flood::connections(to(STATUS), CONNECTIONS, b"", format!("{head}\r\n").as_bytes());
    let silent = flood::connections(to(STATUS), CONNECTIONS, head.as_bytes(), &[]);
    // Envoy's, which asks the agent for each.
    let probes = flood::connections(to(READINESS), CONNECTIONS, b"", format!("{head}\r\n").as_bytes());
    Ok([heads, unread, silent, probes])
}

/// Queries for names of others, and messages that never end.
fn by_a_user() -> Result<Vec<TcpStream>> {
    flood::become_nobody()?;
    let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DNS);
    flood::queries(to, QUERIES)?;
    Ok(flood::connections(to, CONNECTIONS, &[0xff, 0xff, 0], &[]))
}

/// Names of the mesh, Envoy's question for readiness, and root's for the status, which says what the others were refused.
fn others_are_served(mesh: &Mesh) -> Result<()> {
    let calls = mesh.calls_to_the_pod().at_rate(20, Duration::from_secs(1));
    calls.run(&mesh.network, Host::Vm)?.expect_all_answered()?;
    let (code, said) = http::get(&mesh.network, Host::Vm, READINESS, "/healthz/ready")?;
    ensure!(code == 200 && said == "ready", "readiness is {code}: {said}");
    let (status, _) = mesh.vm.status(&mesh.network)?;
    for what in ["15020 connections", "DNS connections", "connections to Envoy's sockets"] {
        let refused = status["refused"].as_array();
        let counted = refused.is_some_and(|all| all.iter().any(|one| one["what"] == what));
        ensure!(counted, "no {what} were refused: {status}");
    }
    Ok(())
}

/// MemoryMax of the agent's unit, in bytes.
fn memory_limit() -> Result<u64> {
    let line = UNIT.lines().find_map(|line| line.strip_prefix("MemoryMax="));
    let mebibytes = line.and_then(|line| line.strip_suffix('M')?.parse::<u64>().ok());
    Ok(mebibytes.context("the unit has no MemoryMax in MiB")? << 20)
}
