//! Waits of the agent's clients while istiod pushes much: 50 MiB at once, many small pushes a second, and a name table
//! of 20,000 names. Beside them an echo on the same processors at the same time, whose waits are the machine's.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use e2e::mesh::Mesh;
use e2e::network::{Host, Network};
use e2e::process::resident;
use e2e::{PATIENCE, eventually, http};
use istio_api::nds::{NAME_TABLE, NameTable};
use istio_api::rpc::{Struct, Value, value};
use prost::Message as _;

use super::Report;
use super::dns::{ECHO_PORT, PORT, QUERY, is_answer, send_back};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The clusters of a push of 50 MiB, and the bytes of each.
const CLUSTERS: usize = 500;
const EACH: usize = 50 * (1 << 20) / CLUSTERS;
/// Small pushes a second.
const RATE: u32 = 1000;
const NAMES: usize = 20_000;
/// Time that small pushes, or none, are made for.
const TURN: Duration = Duration::from_secs(2);
/// Longest wait for the answer of a name that may not be known yet, and is asked of a server that doesn't answer then.
const GLANCE: Duration = Duration::from_millis(20);
/// Between two questions of a client.
const PACE: Duration = Duration::from_millis(1);

/// The fields that this needs of envoy/config/cluster/v3/cluster.proto and core/v3/base.proto.
#[derive(Clone, PartialEq, prost::Message)]
struct Cluster {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "25")]
    metadata: Option<Metadata>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, Struct>,
}

/// The longest that a client waited, in milliseconds, round by round.
#[derive(Debug, Default)]
struct Waits {
    names: Vec<f64>,
    health: Vec<f64>,
    echo: Vec<f64>,
}

impl Waits {
    fn report(&self, when: &str, report: &mut Report) {
        for (what, waits) in [("a name", &self.names), ("health", &self.health)] {
            let figure = format!("longest wait for {what} {when}, ms");
            report.compare(&figure, waits, "an echo", &self.echo);
        }
    }

    /// Asks as long as `work` takes.
    fn take<T>(&mut self, network: &Network, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let over = AtomicBool::new(false);
        let socket = network.within(Host::Vm, echo_socket)?;
        let ask = |port| network.within(Host::Vm, || longest(&over, || query(port)));
        thread::scope(|scope| {
            scope.spawn(|| send_back(&socket, &over));
            let asking = [scope.spawn(|| ask(PORT)), scope.spawn(|| ask(ECHO_PORT))];
            let health = scope.spawn(|| longest(&over, || health(network)));
            let done = work();
            over.store(true, Ordering::Relaxed);
            let [names, echoed] = asking.map(|asking| asking.join().expect("a client does not panic"));
            self.names.push(names?);
            self.echo.push(echoed?);
            self.health.push(health.join().expect("a client does not panic")?);
            done
        })
    }
}

pub(crate) fn measure(mesh: &Mesh, rounds: usize, report: &mut Report) -> Result<()> {
    let (network, state) = (&mesh.network, mesh.control_plane.stand_in()?);
    let agent = mesh.join()?;
    names(mesh, rounds, report)?;
    let memory = |which| Ok::<_, anyhow::Error>(resident(agent.pid(), which)? as f64 / f64::from(1 << 20));
    report.add("resident memory with 20,000 names, MiB", &[memory("VmRSS")?]);
    report.add("of it anonymous, MiB", &[memory("RssAnon")?]);
    let (mut quiet, mut big, mut small) = (Waits::default(), Waits::default(), Waits::default());
    let (mut took, mut pushed) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        quiet.take(network, || {
            thread::sleep(TURN);
            Ok(())
        })?;
        took.push(big.take(network, || push(mesh, round))?);
    }
    state.add_resources(CLUSTER, BTreeMap::new());
    for round in 0..rounds {
        pushed.push(small.take(network, || push_often(mesh, round))?);
    }
    quiet.report("while nothing is pushed", report);
    big.report("while 50 MiB are pushed", report);
    report.add("from the push of 50 MiB to Envoy's ACK, ms", &took);
    small.report(&format!("at up to {RATE} small pushes a second"), report);
    report.add("small pushes that Envoy has acknowledged, a second", &pushed);
    Ok(())
}

/// Pushes other clusters; milliseconds until Envoy has acknowledged them.
fn push(mesh: &Mesh, round: usize) -> Result<f64> {
    let filler = format!("{round}{}", "x".repeat(EACH));
    let clusters = (0..CLUSTERS).map(|index| cluster(&format!("bulk-{index}"), &filler));
    let clusters = clusters.collect();
    let state = mesh.control_plane.stand_in()?;
    let (before, began) = (state.accepted("Cluster"), Instant::now());
    state.add_resources(CLUSTER, clusters);
    acknowledged(mesh, before)?;
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// Pushes one cluster over and over; how many a second were acknowledged.
fn push_often(mesh: &Mesh, round: usize) -> Result<f64> {
    let state = mesh.control_plane.stand_in()?;
    let (before, began) = (state.accepted("Cluster"), Instant::now());
    for count in 0.. {
        let due = Duration::from_secs(1) * count / RATE;
        thread::sleep(due.saturating_sub(began.elapsed()));
        if began.elapsed() > TURN {
            break;
        }
        let changing = cluster("small", &format!("{round}-{count}"));
        state.add_resources(CLUSTER, BTreeMap::from([changing]));
    }
    acknowledged(mesh, before)?;
    Ok((state.accepted("Cluster") - before) as f64 / began.elapsed().as_secs_f64())
}

fn acknowledged(mesh: &Mesh, before: usize) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    eventually("Envoy acknowledges", PATIENCE, || {
        ensure!(state.refused().is_empty(), "{:?}", state.refused());
        ensure!(state.accepted("Cluster") > before, "not yet");
        Ok(())
    })
}

/// A static cluster without an endpoint.
fn cluster(name: &str, filler: &str) -> (String, Bytes) {
    let text = Value {
        kind: Some(value::Kind::StringValue(filler.to_owned())),
    };
    let fields = [("filler".to_owned(), text)].into();
    let metadata = Metadata {
        filter_metadata: [("bench".to_owned(), Struct { fields })].into(),
    };
    let cluster = Cluster {
        name: name.to_owned(),
        metadata: Some(metadata),
    };
    (name.to_owned(), cluster.encode_to_vec().into())
}

/// Pushes the name table, once with as many names more and once without; how long until the agent says so, and who waits.
fn names(mesh: &Mesh, rounds: usize, report: &mut Report) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    let recorded = state.resources(NAME_TABLE);
    let (name, table) = recorded.iter().next().context("there is no name table")?;
    let table = NameTable::decode(&*table.value)?;
    let info = table.table.values().next().context("the name table is empty")?;
    let mut waits = Waits::default();
    let mut took = Vec::new();
    for round in 0..rounds {
        let mut big = table.clone();
        let more = (0..NAMES).map(|index| (format!("bulk-{index}-{round}.bench.svc.cluster.local"), info.clone()));
        big.table.extend(more);
        let last = query_of(&format!("bulk-{}-{round}.bench.svc.cluster.local", NAMES - 1));
        let bytes = Bytes::from(big.encode_to_vec());
        let time = waits.take(&mesh.network, || {
            let began = Instant::now();
            state.add_resources(NAME_TABLE, BTreeMap::from([(name.clone(), bytes)]));
            eventually("the last name is known", PATIENCE, || {
                mesh.network.within(Host::Vm, || ask(PORT, &last, GLANCE))
            })?;
            Ok(began.elapsed().as_secs_f64() * 1e3)
        })?;
        took.push(time);
    }
    waits.report("while 20,000 names are pushed", report);
    report.add("from the push of 20,000 names to the answer of the last, ms", &took);
    Ok(())
}

/// A query for the A record of a name, id 0.
fn query_of(name: &str) -> Vec<u8> {
    let mut query = QUERY[..12].to_vec();
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend(b"\0\0\x01\0\x01");
    query
}

/// Asks over and over; the longest wait, in milliseconds.
fn longest(over: &AtomicBool, ask: impl Fn() -> Result<()>) -> Result<f64> {
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        ask()?;
        longest = longest.max(asked.elapsed());
        thread::sleep(PACE);
    }
    Ok(longest.as_secs_f64() * 1e3)
}

fn query(port: u16) -> Result<()> {
    ask(port, QUERY, PATIENCE)
}

fn ask(port: u16, query: &[u8], patience: Duration) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(query)?;
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).context("no answer")?;
    ensure!(is_answer(&buffer[..length]), "{:?}", &buffer[..length]);
    Ok(())
}

fn health(network: &Network) -> Result<()> {
    let (status, body) = http::get(network, Host::Vm, 15020, "/healthz/ready")?;
    ensure!(status == 200, "{status}: {body}");
    Ok(())
}

fn echo_socket() -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, ECHO_PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    Ok(socket)
}
