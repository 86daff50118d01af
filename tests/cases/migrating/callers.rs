//! A caller in each cluster: a real Envoy that follows the cluster's VirtualService or GRPCRoute, as istiod has it do, a
//! productcatalog on each side, and a Prometheus of its own for each cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::calls::{Calling, Load};
use e2e::envoy::{Envoy, http2_cluster, socket_address};
use e2e::network::{EtcView, Host, Network};
use e2e::process::Process;
use e2e::{PATIENCE, eventually, programs};
use serde_json::{Value, json};

use super::gateway_routes::GRPC_ROUTES;
use super::world::{ROUTE, World};

/// Where the caller of each cluster runs.
const HOSTS: [Host; 2] = [Host::Pod, Host::Outside];
/// Where its Envoy takes calls.
const PORT: u16 = 13550;
/// Where its Prometheus listens.
pub(super) const PROMETHEUS: u16 = 9090;
/// Between two looks at the API servers, each by a connection of its own.
const PERIOD: Duration = Duration::from_millis(400);
/// Calls by which a split is measured, and the part by which it may stray: six standard deviations of one fifth.
const MEASURED: u32 = 300;
const STRAY: f64 = 0.14;

/// The names of VM and pods.
const SIDES: [&str; 2] = ["productcatalogservice", "productcatalogservice-gke"];
/// Envoy's labels as Istio has them.
const CLUSTER_NAME: &str = r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)";

pub(super) struct Callers<'a> {
    world: &'a World,
    envoys: [Envoy; 2],
    pods: Process,
    _vm: Process,
    _prometheus: [Process; 2],
}

impl<'a> Callers<'a> {
    /// Starts them; all calls go to the VM while no cluster has a split.
    pub(super) fn start(world: &'a World) -> Result<Self> {
        let network = &world.network;
        push(world, 0, &Split::none())?;
        push(world, 1, &Split::none())?;
        let envoy = |at: usize| -> Result<Envoy> {
            let mut envoy = Envoy::start(network, HOSTS[at], bootstrap(network, at))?;
            envoy.wait_until_live(network)?;
            Ok(envoy)
        };
        let callers = Self {
            world,
            envoys: [envoy(0)?, envoy(1)?],
            pods: productcatalog(network, Host::Outside, &[])?,
            _vm: productcatalog(network, Host::Vm, &[])?,
            _prometheus: [
                prometheus(network, HOSTS[0], 15000)?,
                prometheus(network, HOSTS[1], 15000)?,
            ],
        };
        for host in HOSTS {
            eventually("a first answer", PATIENCE, || {
                load()
                    .at_rate(20, Duration::from_millis(500))
                    .run(network, host)?
                    .expect_all_answered()
            })?;
        }
        Ok(callers)
    }

    /// Puts another version of the pods in place of the one that runs.
    pub(super) fn deploy(&mut self, arguments: &[&str]) -> Result<()> {
        self.kill_pods()?;
        self.pods = productcatalog(&self.world.network, Host::Outside, arguments)?;
        eventually("an answer of the pods", PATIENCE, || {
            let one = Load::on("127.0.0.1:3550").as_fast_as_answered(1, 1);
            one.run(&self.world.network, Host::Outside)?.expect_all_answered()
        })
    }

    pub(super) fn kill_pods(&mut self) -> Result<()> {
        self.pods.kill()
    }

    /// 100 calls a second in each cluster, until they are stopped.
    pub(super) fn call(&self) -> Result<[Calling; 2]> {
        let of = |host| load().until_stopped(100).start(&self.world.network, host);
        Ok([of(HOSTS[0])?, of(HOSTS[1])?])
    }

    /// Each Envoy has the split of its cluster, and the calls that are being made go by that.
    pub(super) fn expect_share(&self, pods: u32) -> Result<()> {
        for (at, envoy) in self.envoys.iter().enumerate() {
            let name = Split::read(self.world, at)?.name_in_envoy();
            eventually(format!("route {name} in Envoy {at}"), PATIENCE, || {
                let (_, dump) = envoy.admin(&self.world.network, "/config_dump?resource=dynamic_route_configs")?;
                ensure!(dump.contains(&format!("\"name\": \"{name}\"")), "{dump}");
                Ok(())
            })?;
        }
        // With nothing for one side nothing strays there.
        let (count, stray) = if pods.is_multiple_of(100) {
            (50, 0.0)
        } else {
            (MEASURED, STRAY)
        };
        let before = [self.counted(0)?, self.counted(1)?];
        for (at, before) in before.into_iter().enumerate() {
            let made = eventually("calls", PATIENCE, || {
                let after = self.counted(at)?;
                let made = [0, 1].map(|side| after[side] - before[side]);
                ensure!(made[0] + made[1] >= count, "so far {made:?}");
                Ok(made.map(f64::from))
            })?;
            let (share, wanted) = (made[1] / (made[0] + made[1]), f64::from(pods) / 100.0);
            ensure!(
                (share - wanted).abs() <= stray,
                "cluster {at}: the pods get {share}, not {wanted}"
            );
        }
        Ok(())
    }

    /// The calls that an Envoy has made to VM and pods.
    fn counted(&self, at: usize) -> Result<[u32; 2]> {
        let (_, page) = self.envoys[at].admin(&self.world.network, "/clusters")?;
        let counted: BTreeMap<&str, u32> = page
            .lines()
            .filter_map(|line| {
                let (name, rest) = line.split_once("::")?;
                let count = rest.split_once("::rq_total::")?.1;
                Some((name, count.parse().ok()?))
            })
            .collect();
        let of = |side| {
            let name = cluster(side);
            counted
                .get(name.as_str())
                .copied()
                .with_context(|| format!("{name} is not in {page}"))
        };
        Ok([of(SIDES[0])?, of(SIDES[1])?])
    }
}

/// Does `work` while each cluster's Envoy follows its split.
pub(super) fn following<T>(world: &World, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let (end, ends) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let follower = scope.spawn(move || {
            let mut given = [Split::none(), Split::none()];
            while ends.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                for (at, given) in given.iter_mut().enumerate() {
                    // An API server that is dead has its proxies stay as they are.
                    let split = Split::read(world, at).unwrap_or_else(|_| given.clone());
                    if *given != split {
                        push(world, at, &split)?;
                        *given = split;
                    }
                }
            }
            Ok(())
        });
        let done = work();
        drop(end);
        match follower.join() {
            Ok(followed) => followed.and(done),
            Err(_) => bail!("the follower panicked"),
        }
    })
}

/// Calls of a caller.
fn load() -> Load {
    Load::on(format!("127.0.0.1:{PORT}"))
}

fn cluster(side: &str) -> String {
    format!("outbound|3550||{side}.onlineboutique.svc.cluster.local")
}

/// The split of a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Split {
    /// The name that istiod gives its route.
    name: String,
    /// The weights of VM and pods.
    weights: [u64; 2],
}

impl Split {
    fn none() -> Self {
        Self {
            name: "default".to_owned(),
            weights: [100, 0],
        }
    }

    /// Route that the API server has, as a VirtualService or else as a GRPCRoute, which not every case has the kind of.
    fn read(world: &World, at: usize) -> Result<Self> {
        let cluster = &world.clusters[at];
        let first = |all: Value| all["items"].get(0).cloned();
        if let Some(route) = first(cluster.get(&ROUTE.replace("/productcatalogservice-migration", ""))?) {
            let http = &route["spec"]["http"][0];
            return Self::of(&http["name"], &http["route"]);
        }
        match first(cluster.get(GRPC_ROUTES).unwrap_or_default()) {
            None => Ok(Self::none()),
            Some(route) => Self::of(
                &json!("onlineboutique.productcatalogservice-migration.0"),
                &route["spec"]["rules"][0]["backendRefs"],
            ),
        }
    }

    fn of(name: &Value, sides: &Value) -> Result<Self> {
        let weight = |side: usize| sides[side]["weight"].as_u64().context("a side without a weight");
        Ok(Self {
            name: name.as_str().context("a route without a name")?.to_owned(),
            weights: [weight(0)?, weight(1)?],
        })
    }

    fn name_in_envoy(&self) -> String {
        format!("{} {:?}", self.name, self.weights)
    }

    /// The route in istiod's words, which has no side that gets nothing.
    fn in_istiod(&self) -> Value {
        let sides = SIDES.map(cluster).into_iter().zip(self.weights);
        let sides: Vec<_> = sides.filter(|(_, weight)| *weight > 0).collect();
        let action = match sides.as_slice() {
            [(only, _)] => json!({"cluster": only}),
            _ => {
                let clusters = sides
                    .iter()
                    .map(|(name, weight)| json!({"name": name, "weight": weight}));
                json!({"weightedClusters": {"clusters": clusters.collect::<Vec<_>>()}})
            }
        };
        json!({"name": self.name, "route": action})
    }
}

/// Gives an Envoy the split, and then has istiod say so.
fn push(world: &World, at: usize, split: &Split) -> Result<()> {
    let weighted = [0, 1].map(|side| json!({"name": cluster(SIDES[side]), "weight": split.weights[side]}));
    let configuration = json!({
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "3550",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{
            "name": split.name_in_envoy(), "match": {"prefix": "/"}, "route": {"weighted_clusters": {"clusters": weighted}},
        }]}],
    });
    let file = routes_file(&world.network, at);
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec(&json!({"resources": [configuration]}))?)?;
    fs::rename(new, file)?;
    if at == 0 {
        world.give_route("cart.onlineboutique", &split.in_istiod());
    }
    Ok(())
}

fn routes_file(network: &Network, at: usize) -> PathBuf {
    network.folder().join(format!("routes-{at}.json"))
}

fn bootstrap(network: &Network, at: usize) -> Value {
    let from_file = json!({"path_config_source": {"path": routes_file(network, at)}, "resource_api_version": "V3"});
    let filters = json!([
        {"name": "grpc_stats", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        }},
        {"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }},
    ]);
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "outbound", "codec_type": "HTTP2",
        "rds": {"route_config_name": "3550", "config_source": from_file}, "http_filters": filters,
    });
    json!({
        "node": {"id": "caller", "cluster": "caller"},
        "stats_config": {"use_all_default_tags": false, "stats_tags": [{"tag_name": "cluster_name", "regex": CLUSTER_NAME}]},
        "static_resources": {
            "listeners": [{"name": "outbound", "address": socket_address("127.0.0.1", PORT),
                           "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}]}],
            "clusters": [
                http2_cluster(&cluster(SIDES[0]), &Host::Vm.ipv4().to_string(), 3550, None),
                http2_cluster(&cluster(SIDES[1]), &Host::Outside.ipv4().to_string(), 3550, None),
            ],
        },
    })
}

fn productcatalog(network: &Network, host: Host, arguments: &[&str]) -> Result<Process> {
    network.spawn(host, "productcatalog", programs::productcatalog()?, arguments)
}

/// One that reads the figures of the Envoy beside it, at a port.
pub(super) fn prometheus(network: &Network, host: Host, envoy: u16) -> Result<Process> {
    let folder = network.folder().join(format!("prometheus-{host}"));
    fs::create_dir_all(&folder)?;
    let config = folder.join("prometheus.yaml");
    fs::write(
        &config,
        format!(
            "scrape_configs:\n- job_name: envoy\n  scrape_interval: 500ms\n  metrics_path: /stats/prometheus\n  \
             static_configs:\n  - targets: ['127.0.0.1:{envoy}']\n"
        ),
    )?;
    let mut command = network.command(host, EtcView::Plain, "prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={}:{PROMETHEUS}", host.ipv4()));
    Process::spawn(&format!("prometheus@{host}"), command, network.folder())
}
