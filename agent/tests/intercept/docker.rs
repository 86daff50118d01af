//! A real dockerd in the VM's namespace, and one container with a published port.
//!
//! The container only holds its network namespace open: the test serves and calls from inside it.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use istio_vm_agent::config::Backend;
use istio_vm_agent::facts::Membership;
use istio_vm_agent::intercept::{self, Options};

use super::neighbors;
use super::packet::{ACK, MD5, connect_from, send};
use super::rig::*;

/// Docker's default bridge, and the first container on it.
const BRIDGE: &str = "172.17.0.1";
const BRIDGE6: &str = "fd00:d::1";
pub(crate) const FIRST_CONTAINER: &str = "172.17.0.2";
pub(crate) const FIRST_CONTAINER6: &str = "fd00:d::242:ac11:2";

struct Docker {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Docker {
    fn start(rig: &Rig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let daemon = Command::new("nsenter")
            // Not `ip netns exec`, whose /sys has no cgroups.
            .arg(format!("--net=/run/netns/{}", rig.vm))
            .args([
                "unshare",
                "-m",
                "dockerd",
                "--storage-driver",
                "vfs",
                "--ipv6",
                "--experimental",
                "--ip6tables",
            ])
            .args([
                "--fixed-cidr-v6",
                "fd00:d::/64",
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
            ])
            .args([
                "--pidfile",
                &at("pid"),
                "--host",
                &format!("unix://{}", at("docker.sock")),
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd: install docker.io");
        let docker = Self { daemon, directory };
        eventually("dockerd answers", Duration::from_secs(60), || docker.answers());
        docker
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!(
            "unix://{}",
            self.directory.path().join("docker.sock").display()
        ));
        command
    }

    fn answers(&self) -> bool {
        let version = self
            .docker()
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.docker().args(arguments).output().unwrap();
        let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            log()
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// An image whose files are this machine's /usr.
    fn image(&self) {
        let root = self.directory.path().join("root");
        fs::create_dir_all(root.join("usr")).unwrap();
        for link in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        let archive = self.directory.path().join("root.tar").display().to_string();
        let tar = Command::new("tar")
            .args(["-C", &root.display().to_string(), "-cf", &archive, "."])
            .status();
        assert!(tar.unwrap().success());
        self.run(&["import", &archive, "holder"]);
    }

    /// A container that publishes a port as another; gives its network namespace.
    fn container(&self, name: &str, publish: &str) -> String {
        self.held(name, &["-p", publish])
    }

    /// A container that only holds its network namespace, which this gives.
    fn held(&self, name: &str, options: &[&str]) -> String {
        let head = ["run", "-d", "--name", name, "-v", "/usr:/usr:ro"];
        let tail = ["holder", "sleep", "infinity"];
        self.run(&[&head, options, &tail].concat());
        format!("/proc/{}/ns/net", self.run(&["inspect", "-f", "{{.State.Pid}}", name]))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.docker().args(["rm", "-f", "app", "other", "shopper"]).output();
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

/// Who answers a call from Envoy's source address for the application.
fn from_envoy(rig: &Rig, source: &str, ip: &str, port: u16) -> String {
    let (source, target): (SocketAddr, SocketAddr) = (address(source, 0), address(ip, port));
    rig.at(&rig.vm, Who::Envoy, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = if source.is_ipv4() {
                tokio::net::TcpSocket::new_v4().unwrap()
            } else {
                tokio::net::TcpSocket::new_v6().unwrap()
            };
            socket.bind(source).unwrap();
            let call = async {
                let mut stream = socket.connect(target).await?;
                let mut answer = String::new();
                tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await?;
                std::io::Result::Ok(answer)
            };
            match tokio::time::timeout(Duration::from_secs(5), call).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => error.kind().to_string(),
                Err(_) => "nobody".to_owned(),
            }
        })
    })
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum First {
    Docker,
    Ours,
}

/// A container on docker0 with a published port, by each backend, whoever was first.
fn with_docker(backend: Backend, first: First, test: &str) {
    let rig = Rig::new(test);
    servers_beside_docker(&rig);
    let options = Options {
        bridge: Some(docker0()),
        ..rig.options(backend)
    };
    let mut facts = membership();
    // `*` is the hard case: what a container sends arrives here too.
    facts.inbound_ports = (first == First::Docker).then(|| vec![3550]);
    let change = || intercept::change(&facts, &options).unwrap();
    let early = change();
    if first == First::Ours {
        early.apply(&rig.host).unwrap();
    }
    let docker = Docker::start(&rig);
    docker.image();
    let container = &docker.container("app", "3550:3550");
    rig.serve(container, "::", 3550, "application");
    if first == First::Docker {
        assert_eq!(rig.call(&rig.peer, Who::Root, VM, 3550), "application");
        // Duplicate address detection goes on after the start.
        eventually("the bridge's addresses are its own", Duration::from_secs(30), || {
            !rig.vm("ip addr").contains("tentative")
        });
        let before = rig.snapshot();
        change().apply(&rig.host).unwrap();
        change().revert(&rig.host).unwrap();
        assert_eq!(rig.snapshot(), before);
        change().apply(&rig.host).unwrap();
    }
    if first == First::Ours {
        assert_eq!(early.plan(&rig.host).unwrap(), None, "Docker displaced our rules");
        // There is a bridge now.
        change().apply(&rig.host).unwrap();
    }
    assert_eq!(change().plan(&rig.host).unwrap(), None, "Docker displaced our rules");
    reaches_the_container_through_envoy(&rig);
    serve_dns_on(&rig, BRIDGE);
    leaves_the_container_through_envoy(&rig, container);
    calls_this_vm_as_itself(&rig, container, first);
    leaves_every_network_through_envoy(&rig, &docker, &facts, &options);
    nothing_passes_envoy_by(&rig, container);
    let other = &docker.container("other", "3560:3550");
    rig.serve(other, "::", 3550, "other application");
    assert_eq!(rig.call(&rig.peer, Who::Root, VM, 3560), reach_of_the_other(first));
    neighbors::reach_only_what_is_not_captured(&rig, container, other);
    if first == First::Docker {
        neighbors::wait_for_a_flush_in_vain(&rig, &facts, &options, other);
    }
    has_no_cloud_identity(&rig, &facts, options, container);
}

/// The metadata server is a container's resolver alone.
fn has_no_cloud_identity(rig: &Rig, facts: &Membership, mut options: Options, container: &str) {
    if let Some(bridge) = &mut options.bridge {
        bridge.cloud_identity = false;
    }
    intercept::change(facts, &options).unwrap().apply(&rig.host).unwrap();
    let asks = || TcpStream::connect_timeout(&address(METADATA, 80), Duration::from_millis(300)).is_ok();
    assert!(
        !rig.at(container, Who::Root, asks),
        "the container has the VM's cloud identity"
    );
    assert_eq!(rig.call(container, Who::Root, METADATA, 53), "far");
}

/// Where every port is captured, this one is, too.
fn reach_of_the_other(first: First) -> &'static str {
    match first {
        First::Docker => "other application",
        First::Ours => "inbound",
    }
}

/// Packets that a redirect doesn't take: routed to the container's own address, or in the middle of a connection.
fn nothing_passes_envoy_by(rig: &Rig, container: &str) {
    let short = Duration::from_millis(300);
    let closed = |ns: &str, who: Who, ip: &str| {
        let open = rig.at(ns, who, || {
            TcpStream::connect_timeout(&address(ip, 3550), short).is_ok()
        });
        assert!(!open, "{who:?} of {ns} reaches {ip}");
    };
    command(&format!("ip -n {} route add 172.17.0.0/16 via {VM}", rig.peer));
    command(&format!("ip -n {} -6 route add fd00:d::/64 via {VM6}", rig.peer));
    for ip in [FIRST_CONTAINER, FIRST_CONTAINER6] {
        closed(&rig.peer, Who::Root, ip);
        closed(&rig.vm, Who::Nobody, ip);
        assert_eq!(rig.call(&rig.vm, Who::Envoy, ip, 3550), "application", "{ip}");
    }
    assert_eq!(rig.call(&rig.vm, Who::Nobody, "127.0.0.1", 3550), "inbound");
    for ip in [VM, "127.0.0.1"] {
        let answer = rig.at(&rig.vm, Who::Nobody, || {
            let (from, to) = (address("127.0.0.6", 0), address(ip, 3550));
            connect_from(from, to, short).map_or_else(|error| error.kind().to_string(), heard)
        });
        assert_eq!(answer, "inbound", "from Envoy's own source to {ip}");
    }

    let forged = |ns: &str, from: SocketAddr, to: SocketAddr| {
        rig.at(ns, Who::Root, || {
            send(from, to, ACK, &MD5);
            connect_from(from, to, short).map_or_else(|error| error.kind().to_string(), heard)
        })
    };
    assert_eq!(forged(&rig.peer, address(PEER, 21000), address(VM, 3550)), "inbound");
    assert_eq!(
        forged(&rig.peer, address(PEER, 21001), address(FIRST_CONTAINER, 3550)),
        "timed out"
    );
    assert_eq!(
        forged(container, address(FIRST_CONTAINER, 21002), address(FAR, 80)),
        "timed out"
    );
}

fn servers_beside_docker(rig: &Rig) {
    for (port, label) in [
        (15001, "outbound"),
        (15006, "inbound"),
        (15007, "container"),
        (5432, "this VM's own"),
        (22, "ssh"),
    ] {
        rig.serve(&rig.vm, "::", port, label);
    }
    rig.serve_dns_and_far();
    rig.serve(&rig.peer, METADATA, 53, "far");
}

fn reaches_the_container_through_envoy(rig: &Rig) {
    for ip in [VM, VM6] {
        assert_eq!(rig.call(&rig.peer, Who::Root, ip, 3550), "inbound", "{ip}");
    }
    assert_eq!(from_envoy(rig, "127.0.0.6", VM, 3550), "container");
    assert_eq!(from_envoy(rig, "::6", VM6, 3550), "container");
    assert_eq!(from_envoy(rig, "0.0.0.0", FIRST_CONTAINER, 3550), "application");
    for ip in ["127.0.0.1", VM] {
        assert_eq!(rig.call(&rig.vm, Who::Root, ip, 3550), "container", "{ip}");
    }
}

fn leaves_the_container_through_envoy(rig: &Rig, container: &str) {
    for ip in [FAR, FAR6] {
        assert_eq!(rig.call(container, Who::Root, ip, 80), "outbound", "{ip}");
    }
    assert_eq!(rig.call(container, Who::Root, METADATA, 80), "far");
    assert_eq!(rig.ask(container, Who::Root, RESOLVER, 53, 0), "agent's DNS");
    assert_eq!(rig.call(container, Who::Root, RESOLVER, 53), "agent's DNS");
    assert_eq!(rig.ask(&rig.vm, Who::Root, RESOLVER, 53, 0), "agent's DNS");
}

/// Calls to the VM that aren't the application's are for its firewall to judge, which knows a container by its bridge
/// and not by Envoy.
fn calls_this_vm_as_itself(rig: &Rig, container: &str, first: First) {
    let of_this_vm = match first {
        First::Docker => "this VM's own",
        // With `*` all ports may be the application's.
        First::Ours => "outbound",
    };
    for ip in [BRIDGE, BRIDGE6, VM, VM6] {
        assert_eq!(rig.call(container, Who::Root, ip, 5432), of_this_vm, "{ip}");
        assert_eq!(rig.call(container, Who::Root, ip, 22), "ssh", "{ip}");
        assert_eq!(rig.call(container, Who::Root, ip, 3550), "outbound", "{ip}");
    }
}

fn serve_dns_on(rig: &Rig, gateway: &str) {
    rig.serve(&rig.vm, gateway, 15053, "agent's DNS");
    rig.serve_udp(&rig.vm, gateway, 15053, "agent's DNS");
}

/// A network of its own with a bridge of its own name, made after the rules; and one that is left alone.
fn leaves_every_network_through_envoy(rig: &Rig, docker: &Docker, facts: &Membership, options: &Options) {
    const GATEWAY: &str = "172.30.9.1";
    let named = "com.docker.network.bridge.name=shop0";
    docker.run(&["network", "create", "--subnet", "172.30.9.0/24", "-o", named, "shop"]);
    let container = &docker.held("shopper", &["--network", "shop"]);
    let change = intercept::change(facts, options).unwrap();
    let difference = change.plan(&rig.host).unwrap();
    assert!(difference.is_some_and(|plan| plan.contains("shop0")));
    change.apply(&rig.host).unwrap();
    assert_eq!(change.plan(&rig.host).unwrap(), None);
    serve_dns_on(rig, GATEWAY);
    assert_eq!(rig.call(container, Who::Root, FAR, 80), "outbound");
    assert_eq!(rig.ask(container, Who::Root, RESOLVER, 53, 0), "agent's DNS");
    assert_eq!(rig.call(container, Who::Root, METADATA, 80), "far");
    let neighbor = rig.at(container, Who::Root, || {
        TcpStream::connect_timeout(&address(FIRST_CONTAINER, 3550), Duration::from_millis(300)).is_ok()
    });
    assert!(!neighbor, "Envoy leads from one of Docker's networks into another");

    let mut but_one = options.clone();
    but_one.config.exclude_container_networks = vec!["172.30.0.0/16".parse().unwrap()];
    intercept::change(facts, &but_one).unwrap().apply(&rig.host).unwrap();
    assert_eq!(rig.call(container, Who::Root, FAR, 80), "far");
    assert_eq!(rig.ask(container, Who::Root, RESOLVER, 53, 0), "resolver");
    docker.run(&["rm", "-f", "shopper"]);
    docker.run(&["network", "rm", "shop"]);
    intercept::change(facts, options).unwrap().apply(&rig.host).unwrap();
}

#[test]
fn nftables_before_docker() {
    with_docker(Backend::Nftables, First::Ours, "nft-dock1");
}

#[test]
fn nftables_after_docker() {
    with_docker(Backend::Nftables, First::Docker, "nft-dock2");
}

#[test]
fn iptables_before_docker() {
    with_docker(Backend::Iptables, First::Ours, "ipt-dock1");
}

#[test]
fn iptables_after_docker() {
    with_docker(Backend::Iptables, First::Docker, "ipt-dock2");
}
