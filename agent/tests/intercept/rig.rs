//! A VM and its neighbour as two network namespaces, with servers that say who they are.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use anyhow::Context;
use istio_vm_agent::config::{Backend, Config, InterceptConfig};
use istio_vm_agent::facts::{HostBridge, HostState, Membership, SpiffeId};
use istio_vm_agent::host::{CommandError, Host, Invocation, Run, System, Watched};
use istio_vm_agent::intercept::{Bridge, Options};
use istio_vm_agent::part::{CheckContext, Finding, Joined, Part, Site, Units};
use kit::namespace;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use tokio::sync::watch;

pub(crate) const VM: &str = "10.9.0.2";
pub(crate) const VM6: &str = "fd09::2";
/// The neighbour, and what lies behind it.
pub(crate) const PEER: &str = "10.9.0.1";
pub(crate) const PEER6: &str = "fd09::1";
pub(crate) const FAR: &str = "203.0.113.9";
pub(crate) const FAR6: &str = "2001:db8::9";
pub(crate) const RESOLVER: &str = "203.0.113.53";
pub(crate) const METADATA: &str = "169.254.169.254";

/// Longest wait for an answer that is to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who opens a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Who {
    Root,
    /// The agent: root with Envoy's group.
    Agent,
    Envoy,
    /// A user of the VM without rights.
    Nobody,
}

pub(crate) struct Rig {
    pub(crate) vm: String,
    pub(crate) peer: String,
    root: tempfile::TempDir,
    pub(crate) host: Host,
    /// Programs that the product has started, each by its words.
    started: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    /// Fails when it can't be made; never skips.
    pub(crate) fn new(test: &str) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this test makes network namespaces: run it as root"
        );
        let name = |side: &str| format!("ivmt-{test}-{}-{side}", std::process::id());
        let (vm, peer) = (name("vm"), name("peer"));
        for ns in [&vm, &peer] {
            command(&format!("ip netns add {ns}"));
            command(&format!("ip -n {ns} link set lo up"));
        }
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::create_dir(root.path().join("run")).unwrap();
        fs::write(root.path().join("etc/resolv.conf"), format!("nameserver {RESOLVER}\n")).unwrap();
        std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
        let started = Arc::default();
        let inside = Inside {
            ns: vm.clone(),
            started: Arc::clone(&started),
        };
        let host = Host::new(root.path(), inside);
        let rig = Self {
            vm,
            peer,
            root,
            host,
            started,
        };
        rig.wire();
        rig
    }

    fn wire(&self) {
        let Self { vm, peer, .. } = self;
        command(&format!(
            "ip link add eth0 netns {vm} type veth peer name eth0 netns {peer}"
        ));
        for (ns, v4, v6) in [(vm, VM, VM6), (peer, PEER, PEER6)] {
            // A link-local address would show up some time after, in the middle of a comparison.
            command(&format!("ip -n {ns} link set eth0 addrgenmode none"));
            command(&format!("ip -n {ns} addr add {v4}/24 dev eth0"));
            command(&format!("ip -n {ns} addr add {v6}/64 dev eth0 nodad"));
            command(&format!("ip -n {ns} link set eth0 up"));
        }
        for address in [FAR, FAR6, RESOLVER, METADATA] {
            command(&format!("ip -n {peer} addr add {address} dev lo"));
        }
        command(&format!("ip -n {vm} route add default via {PEER}"));
        command(&format!("ip -n {vm} -6 route add default via {PEER6}"));
        command(&format!("ip -n {vm} addr add ::6/128 dev lo"));
    }

    /// Programs that the product has started since the last time.
    pub(crate) fn started(&self) -> Vec<String> {
        std::mem::take(&mut *self.started.lock().unwrap())
    }

    pub(crate) fn options(&self, backend: Backend) -> Options {
        Options {
            host: self.host.clone(),
            config: InterceptConfig {
                backend,
                ..InterceptConfig::default()
            },
            bridge: None,
            kept: PathBuf::from("/inbound.json"),
            repairs: Default::default(),
        }
    }

    /// Runs `work` in a thread inside a namespace, as somebody.
    pub(crate) fn at<T: Send>(&self, ns: &str, who: Who, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                enter(ns);
                become_(who);
                work()
            });
            inside.join().unwrap()
        })
    }

    /// A TCP server that greets each caller with `label`.
    pub(crate) fn serve(&self, ns: &str, ip: &str, port: u16, label: &str) {
        self.serve_as(ns, Who::Root, ip, port, label);
    }

    /// The same, of somebody's.
    pub(crate) fn serve_as(&self, ns: &str, who: Who, ip: &str, port: u16, label: &str) {
        let (bound, is_bound) = mpsc::channel();
        let (ns, address, label) = (ns.to_owned(), address(ip, port), label.to_owned());
        std::thread::spawn(move || {
            enter(&ns);
            become_(who);
            let listener = TcpListener::bind(address).unwrap();
            bound.send(()).unwrap();
            for stream in listener.incoming() {
                let _ = stream.unwrap().write_all(label.as_bytes());
            }
        });
        is_bound.recv().unwrap();
    }

    /// A UDP server that answers each datagram with `label`.
    pub(crate) fn serve_udp(&self, ns: &str, ip: &str, port: u16, label: &str) {
        let (bound, is_bound) = mpsc::channel();
        let (ns, address, label) = (ns.to_owned(), address(ip, port), label.to_owned());
        std::thread::spawn(move || {
            enter(&ns);
            // As the agent: its answers are told by their group.
            become_(Who::Agent);
            let socket = UdpSocket::bind(address).unwrap();
            bound.send(()).unwrap();
            let mut buffer = [0; 64];
            while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(label.as_bytes(), from);
            }
        });
        is_bound.recv().unwrap();
    }

    /// Who answers a TCP call.
    pub(crate) fn call(&self, ns: &str, who: Who, ip: &str, port: u16) -> String {
        self.call_within(ns, who, ip, port, PATIENCE)
    }

    /// The same, when it comes to a connection so soon.
    pub(crate) fn call_within(&self, ns: &str, who: Who, ip: &str, port: u16, patience: Duration) -> String {
        self.at(ns, who, || {
            TcpStream::connect_timeout(&address(ip, port), patience)
                .map_or_else(|error| error.kind().to_string(), heard)
        })
    }

    /// The agent's DNS in the VM; beside it a resolver and a web server.
    pub(crate) fn serve_dns_and_far(&self) {
        for (ns, ip, port, label) in [
            (&self.vm, "127.0.0.1", 15053, "agent's DNS"),
            (&self.peer, RESOLVER, 53, "resolver"),
        ] {
            self.serve(ns, ip, port, label);
            self.serve_udp(ns, ip, port, label);
        }
        self.serve(&self.peer, "::", 80, "far");
    }

    /// Who answers a datagram from `port_from`, any when 0.
    pub(crate) fn ask(&self, ns: &str, who: Who, ip: &str, port: u16, port_from: u16) -> String {
        self.at(ns, who, || {
            let mut socket = None;
            // A program that another test is just starting may still hold the last one.
            eventually("the port is free", PATIENCE, || {
                socket = UdpSocket::bind((IpAddr::from([0, 0, 0, 0]), port_from)).ok();
                socket.is_some()
            });
            let socket = socket.unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.connect(address(ip, port)).unwrap();
            socket.send(b"?").unwrap();
            let mut buffer = [0; 64];
            match socket.recv(&mut buffer) {
                Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
                Err(error) => error.kind().to_string(),
            }
        })
    }

    /// Output of a command in the VM.
    pub(crate) fn vm(&self, line: &str) -> String {
        command(&format!("ip netns exec {} {line}", self.vm))
    }

    /// Feeds a program in the VM.
    pub(crate) fn feed(&self, program: &str, text: &str) {
        let file = self.root.path().join("input");
        fs::write(&file, text).unwrap();
        self.vm(&format!("sh -c {}", quoted(&format!("{program} < {}", file.display()))));
    }

    /// All that P2 promises to give back.
    pub(crate) fn snapshot(&self) -> String {
        let mut all = String::new();
        for line in [
            // Without counters: neighbour discovery goes on.
            "nft -s list ruleset",
            "iptables-nft-save",
            "ip6tables-nft-save",
            "ip rule",
            "ip -6 rule",
            "ip route show table all",
            "ip -6 route show table all",
            "ip addr",
            "cat /proc/net/ip_tables_names",
            "cat /proc/net/ip6_tables_names",
        ] {
            all += &format!("# {line}\n");
            let output = self.vm(line);
            all.extend(
                output
                    .lines()
                    .filter(|line| !line.starts_with('#'))
                    .map(|line| format!("{line}\n")),
            );
        }
        for (names, save) in [("ip_tables_names", "iptables"), ("ip6_tables_names", "ip6tables")] {
            // Asking makes a table, so only where there is one.
            if !self.vm(&format!("cat /proc/net/{names}")).is_empty() {
                let saved = self.vm(&format!("{save}-legacy-save"));
                all.extend(
                    saved
                        .lines()
                        .filter(|line| !line.starts_with('#'))
                        .map(|line| format!("{line}\n")),
                );
            }
        }
        all
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for ns in [&self.vm, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", ns]).status();
        }
    }
}

/// Greeting of a TCP server.
pub(crate) fn heard(mut stream: TcpStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => answer,
        Err(error) => error.kind().to_string(),
    }
}

/// Runs the product's commands inside a namespace, and notes them.
#[derive(Debug)]
struct Inside {
    ns: String,
    started: Arc<Mutex<Vec<String>>>,
}

impl Run for Inside {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        System.run(&Invocation::new(self.argv(call)).with_stdin(&call.stdin))
    }

    fn argv(&self, call: &Invocation) -> Vec<String> {
        self.started.lock().unwrap().push(call.to_string());
        let prefix = ["nsenter".to_owned(), format!("--net=/run/netns/{}", self.ns)];
        prefix.into_iter().chain(call.argv.iter().cloned()).collect()
    }

    fn bridges(&self) -> std::io::Result<Vec<HostBridge>> {
        self.within(|| System.bridges())
    }

    fn netfilter(&self) -> std::io::Result<OwnedFd> {
        self.within(|| System.netfilter())
    }

    fn kernel_changes(&self, watched: Watched) -> std::io::Result<OwnedFd> {
        self.within(|| System.kernel_changes(watched))
    }
}

impl Inside {
    fn within<T: Send>(&self, ask: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                enter(&self.ns);
                ask()
            });
            inside.join().unwrap()
        })
    }
}

fn enter(ns: &str) {
    // A name, or the path of some process's namespace.
    namespace::enter(&PathBuf::from("/run/netns").join(ns)).unwrap();
}

fn become_(who: Who) {
    let (uid, gid) = match who {
        Who::Root => return,
        Who::Agent => (0, 1337),
        Who::Envoy => (1337, 1337),
        Who::Nobody => (65534, 65534),
    };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_thread_res_gid(gid, gid, gid).unwrap();
    set_thread_res_uid(uid, uid, uid).unwrap();
}

pub(crate) fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

fn quoted(text: &str) -> String {
    text.replace(' ', "\u{1}")
}

/// Runs a command line of simple words; `\u{1}` is a space within one.
pub(crate) fn command(line: &str) -> String {
    let mut words = line.split_whitespace().map(|word| word.replace('\u{1}', " "));
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until it holds.
pub(crate) fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    kit::eventually(what, limit, || holds().then_some(()).context("not yet")).unwrap();
    start.elapsed()
}

/// Finding of `check` about one thing that a part looks at.
pub(crate) fn finding(part: &dyn Part, name: &str, host: &Host) -> Finding {
    let site = Site {
        host: host.clone(),
        config: Config::default(),
        units: Units::default(),
    };
    let (_known, joined) = watch::channel(Joined::Known(Arc::new(membership()), None));
    let context = CheckContext {
        site: Arc::new(site),
        joined,
    };
    let mut questions = part.questions(&context).into_iter();
    let question = questions.find(|question| question.subject.name == name).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(question.answer).remove(0)
}

/// The machine of which nothing is known and no change is told: its bridges are looked at with the rules.
pub(crate) fn machine() -> watch::Receiver<HostState> {
    static MACHINE: LazyLock<watch::Sender<HostState>> = LazyLock::new(watch::Sender::default);
    MACHINE.subscribe()
}

/// A container on Docker's default bridge that publishes its port.
pub(crate) fn docker0() -> Bridge {
    Bridge {
        interface: "docker0".into(),
        ports: vec!["3550:3550".parse().unwrap()],
        cloud_identity: true,
    }
}

pub(crate) fn membership() -> Membership {
    Membership {
        env: [("ISTIO_SERVICE_CIDR", "*"), ("ISTIO_DUAL_STACK", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        spiffe_id: SpiffeId {
            trust_domain: "cluster.local".into(),
            namespace: "onlineboutique".into(),
            service_account: "productcatalog".into(),
        },
        cluster_id: "Kubernetes".into(),
        cluster_domain: "cluster.local".to_owned(),
        discovery_address: "istiod.istio-system.svc:15012".into(),
        ca_address: "istiod.istio-system.svc:15012".into(),
        node_name: "vm".into(),
        instance_ips: [VM, VM6].map(|ip| ip.parse().unwrap()).into(),
        inbound_ports: Some(vec![3550]),
        exclude_ports: vec![22],
        dns_capture: true,
        ..Membership::default()
    }
}
