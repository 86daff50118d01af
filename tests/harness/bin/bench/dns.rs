//! The mesh's names over DNS: answers a second of the server's processor time, and the time that the slowest hundredth takes
//! at 20,000 queries a second. In turns with Istio's own agent, where it is at hand, and with a loop that sends each packet
//! back, which is the most that any server on such a socket can do.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::mesh::{ControlPlane, Mesh};
use e2e::network::{Host, Network};
use e2e::process::processor_time;
use e2e::real::PilotAgent;
use rustix::time::{ClockId, clock_gettime};

use super::Report;

/// Time that a measurement takes.
const TURN: Duration = Duration::from_secs(1);
/// Queries that are under way at a time.
const WINDOW: usize = 32;
const RATE: f64 = 20_000.0;
pub(crate) const PORT: u16 = 15053;
pub(crate) const ECHO_PORT: u16 = 15_999;
/// A for cartservice.onlineboutique.svc.cluster.local, id 0.
pub(crate) const QUERY: &[u8] =
    b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x0bcartservice\x0eonlineboutique\x03svc\x07cluster\x05local\0\0\x01\0\x01";

#[derive(Debug, Default)]
struct Figures {
    /// Answers a second of processor time, in thousands.
    hits: Vec<f64>,
    /// The 99th percentile of the time to an answer, in microseconds.
    p99: Vec<f64>,
}

pub(crate) fn compare(mesh: &Mesh, rounds: usize, report: &mut Report) -> Result<()> {
    let network = &mesh.network;
    let agent = mesh.join()?;
    let peer = match &mesh.control_plane {
        ControlPlane::Real { cluster, .. } => {
            let bundle = network.folder().join("dns-peer-bundle");
            cluster.bundle(network, "productcatalog", &bundle)?;
            let process = PilotAgent::start(network, Host::Outside, &bundle)?;
            Some((network.pid_of(Host::Outside, "pilot-agent")?, process))
        }
        ControlPlane::StandIn { .. } => None,
    };
    let (mut ours, mut theirs, mut echoed) = (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..rounds {
        measure(network, Host::Vm, agent.pid(), &mut ours)?;
        if let Some((pid, _)) = &peer {
            measure(network, Host::Outside, *pid, &mut theirs)?;
        }
        echo(network, &mut echoed)?;
    }
    for (program, figures) in [("pilot-agent", &theirs), ("an echo", &echoed)] {
        if !figures.hits.is_empty() {
            report.compare(
                "DNS, thousands of answers a second of processor time",
                &ours.hits,
                program,
                &figures.hits,
            );
            report.compare(
                "DNS, 99th percentile at 20,000 a second, µs",
                &ours.p99,
                program,
                &figures.p99,
            );
        }
    }
    Ok(())
}

fn measure(network: &Network, host: Host, pid: u32, figures: &mut Figures) -> Result<()> {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
    let before = processor_time(pid)?;
    let answers = network.within(host, || ask(server))?;
    figures
        .hits
        .push(answers as f64 / (processor_time(pid)? - before) / 1e3);
    figures.p99.push(network.within(host, || paced(server))?);
    Ok(())
}

/// The same of a loop that sends back what it receives.
fn echo(network: &Network, figures: &mut Figures) -> Result<()> {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, ECHO_PORT));
    network.within(Host::Vm, || {
        let (socket, over) = (UdpSocket::bind(server)?, AtomicBool::new(false));
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        thread::scope(|scope| {
            let serving = scope.spawn(|| send_back(&socket, &over));
            let answers = ask(server);
            over.store(true, Ordering::Relaxed);
            let time = serving.join().expect("an echo does not panic");
            figures.hits.push(answers? as f64 / time / 1e3);
            over.store(false, Ordering::Relaxed);
            let serving = scope.spawn(|| send_back(&socket, &over));
            figures.p99.push(paced(server)?);
            over.store(true, Ordering::Relaxed);
            serving.join().expect("an echo does not panic");
            Ok(())
        })
    })
}

/// Serves until `over`; the thread's processor time, in seconds.
pub(crate) fn send_back(socket: &UdpSocket, over: &AtomicBool) -> f64 {
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            let _ = socket.send_to(&buffer[..length], client);
        }
    }
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Asks for a turn, a query for each answer; the number of answers.
fn ask(server: SocketAddr) -> Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    for _ in 0..WINDOW {
        socket.send(QUERY)?;
    }
    let (began, mut buffer, mut answers) = (Instant::now(), [0; 4096], 0);
    while began.elapsed() < TURN {
        let length = socket.recv(&mut buffer).context("no answer")?;
        ensure!(is_answer(&buffer[..length]), "{:?}", &buffer[..length]);
        answers += 1;
        socket.send(QUERY)?;
    }
    Ok(answers)
}

/// Asks at a steady rate for a turn; the 99th percentile of the time to an answer, in microseconds.
fn paced(server: SocketAddr) -> Result<f64> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    let (began, mut sent, mut buffer) = (Instant::now(), Vec::new(), [0; 4096]);
    let (mut times, mut query) = (Vec::new(), QUERY.to_vec());
    while began.elapsed() < TURN {
        while (sent.len() as f64) < began.elapsed().as_secs_f64() * RATE {
            query[..2].copy_from_slice(&(sent.len() as u16).to_be_bytes());
            sent.push(Instant::now());
            socket.send(&query)?;
        }
        match socket.recv(&mut buffer) {
            Ok(length) => {
                ensure!(is_answer(&buffer[..length]), "{:?}", &buffer[..length]);
                let asked = sent[usize::from(u16::from_be_bytes([buffer[0], buffer[1]]))];
                times.push(asked.elapsed().as_secs_f64() * 1e6);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(io::Error::into(error)),
        }
    }
    ensure!(
        times.len() * 10 > sent.len() * 9,
        "{} of {} answered",
        times.len(),
        sent.len()
    );
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() * 99 / 100])
}

/// A response without an error.
pub(crate) fn is_answer(packet: &[u8]) -> bool {
    matches!(packet, [_, _, first, second, ..] if first & 0x80 != 0 && second & 0x0f == 0)
}
