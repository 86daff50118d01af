//! Costs of istiod's pushes for the agent, beside Istio's own, which is pushed the same at the same time: processor
//! time until Envoy has them, and memory with many more services in the mesh.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::mesh::{ControlPlane, Mesh};
use e2e::network::{Host, Network};
use e2e::process::{processor_time, resident};
use e2e::real::{PilotAgent, Real};
use e2e::{PATIENCE, eventually, http};

use super::Report;

/// Services beside those of the cases; and how many of them change in a round.
const SERVICES: usize = 1000;
const CHANGED: usize = 200;
/// istiod waits for as long for more changes before it pushes at all (PILOT_DEBOUNCE_MAX).
const QUIET: Duration = Duration::from_secs(2);
const MEBI: f64 = (1 << 20) as f64;

/// Of one agent.
#[derive(Debug)]
struct Proxy {
    host: Host,
    pid: u32,
    /// Seconds of processor time, and MiB that Envoy was sent, round by round.
    time: Vec<f64>,
    sent: Vec<f64>,
}

impl Proxy {
    fn new(host: Host, pid: u32) -> Self {
        Self {
            host,
            pid,
            time: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// MiB that Envoy has had of its agent since it was started.
    fn received(&self, network: &Network) -> Result<f64> {
        let bytes = self.count(network, "envoy_cluster_upstream_cx_rx_bytes_total", "\"xds-grpc\"")?;
        Ok(bytes / MEBI)
    }

    /// Clusters that Envoy has been given since it was started.
    fn added(&self, network: &Network) -> Result<f64> {
        self.count(network, "envoy_cluster_manager_cluster_added", "")
    }

    fn count(&self, network: &Network, name: &str, label: &str) -> Result<f64> {
        let (_, page) = http::get(network, self.host, 15090, "/stats/prometheus")?;
        let line = page.lines().find(|line| line.starts_with(name) && line.contains(label));
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        count.with_context(|| format!("Envoy on {} has no count {name}", self.host))
    }

    /// Milliseconds of processor time a MiB.
    fn cost(&self) -> Vec<f64> {
        self.time
            .iter()
            .zip(&self.sent)
            .map(|(time, sent)| time * 1e3 / sent)
            .collect()
    }

    fn memory(&self, which: &str) -> Result<f64> {
        Ok(resident(self.pid, which)? as f64 / MEBI)
    }
}

pub(crate) fn compare(mesh: &Mesh, rounds: usize, report: &mut Report) -> Result<()> {
    let network = &mesh.network;
    let ControlPlane::Real { cluster, .. } = &mesh.control_plane else {
        return Ok(());
    };
    let agent = mesh.join()?;
    let bundle = network.folder().join("pushes-peer-bundle");
    cluster.bundle(network, "productcatalog", &bundle)?;
    let _peer = PilotAgent::start(network, Host::Outside, &bundle)?;
    let mut proxies = [
        Proxy::new(Host::Vm, agent.pid()),
        Proxy::new(Host::Outside, network.pid_of(Host::Outside, "pilot-agent")?),
    ];
    push(network, cluster, &proxies, SERVICES, 8000)?;
    let [ours, theirs] = &proxies;
    for (figure, which) in [("resident", "VmRSS"), ("anonymous", "RssAnon")] {
        let figure = format!("{figure} memory with {SERVICES} more services, MiB");
        report.compare(&figure, &[ours.memory(which)?], "pilot-agent", &[theirs.memory(which)?]);
    }
    for round in 1..=rounds {
        let before = [look(network, &proxies[0])?, look(network, &proxies[1])?];
        push(network, cluster, &proxies, CHANGED, 8000 + round)?;
        for (proxy, (time, sent)) in proxies.iter_mut().zip(before) {
            let (time_now, sent_now) = look(network, proxy)?;
            ensure!(sent_now > sent, "Envoy on {} was sent nothing", proxy.host);
            proxy.time.push(time_now - time);
            proxy.sent.push(sent_now - sent);
        }
    }
    let [ours, theirs] = &proxies;
    report.compare("pushes, MiB to Envoy", &ours.sent, "pilot-agent", &theirs.sent);
    let figure = "processor time a MiB pushed, ms";
    report.compare(figure, &ours.cost(), "pilot-agent", &theirs.cost());
    Ok(())
}

/// Processor time and MiB so far.
fn look(network: &Network, proxy: &Proxy) -> Result<(f64, f64)> {
    Ok((processor_time(proxy.pid)?, proxy.received(network)?))
}

/// Has the first `count` of the services at this port, and waits until both Envoys have them.
fn push(network: &Network, cluster: &Real, proxies: &[Proxy; 2], count: usize, port: usize) -> Result<()> {
    let added = || Ok::<_, anyhow::Error>([proxies[0].added(network)?, proxies[1].added(network)?]);
    let before = added()?;
    let mut text = String::new();
    for index in 0..count {
        write!(
            text,
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: bench-{index}, namespace: onlineboutique}}\n\
             spec: {{hosts: [bench-{index}.example.org], resolution: STATIC, ports: [{{number: {port}, name: http, \
             protocol: HTTP}}], endpoints: [{{address: 198.51.100.1}}]}}\n---\n"
        )?;
    }
    cluster.apply(network, "bench", &text)?;
    // Each has a cluster for each port.
    eventually(format!("{count} services"), PATIENCE, || {
        let more = added()?.into_iter().zip(before).map(|(now, before)| now - before);
        let more = more.collect::<Vec<_>>();
        ensure!(more.iter().all(|more| *more >= count as f64), "{more:?}");
        Ok(())
    })?;
    await_quiet(network, proxies)
}

/// Waits until neither Envoy has been sent anything for a while.
fn await_quiet(network: &Network, proxies: &[Proxy; 2]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let received = || Ok::<_, anyhow::Error>([proxies[0].received(network)?, proxies[1].received(network)?]);
    let (mut last, mut since) = (received()?, Instant::now());
    while since.elapsed() < QUIET {
        ensure!(Instant::now() < deadline, "pushes go on and on");
        std::thread::sleep(Duration::from_millis(200));
        let now = received()?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    Ok(())
}
