//! One network of namespaces per case: hosts on one bridge, under names that no other case and no other run has.

use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use kit::namespace;

use crate::files::PrivateEtc;
use crate::process::{Process, output_of};
use crate::{programs, sweep};

/// Where `ip netns` keeps its namespaces.
const NETNS: &str = "/run/netns";

/// A host of the network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Host {
    /// istiod, the API server, the registry.
    ControlPlane,
    /// The VM.
    Vm,
    /// A pod of the mesh.
    Pod,
    /// Somebody who is not in the mesh.
    Outside,
    /// Of two clusters, the gateway of the first one.
    Gateway,
    /// The control plane of the second one.
    SecondControlPlane,
    /// A pod of the second one, which calls.
    SecondPod,
    /// A pod of the second one, which serves what the VM does.
    SecondCatalog,
    /// The gateway of the second one.
    SecondGateway,
}

impl Host {
    const OF_ONE_CLUSTER: [Self; 4] = [Self::ControlPlane, Self::Vm, Self::Pod, Self::Outside];
    const OF_THE_SECOND: [Self; 5] = [
        Self::Gateway,
        Self::SecondControlPlane,
        Self::SecondPod,
        Self::SecondCatalog,
        Self::SecondGateway,
    ];

    /// The node's address in 10.200.0.0/24.
    pub fn ipv4(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 200, 0, self.last_octet())
    }

    /// The node's address in fd00:200::/64.
    pub fn ipv6(self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x200, 0, 0, 0, 0, 0, u16::from(self.last_octet()))
    }

    fn last_octet(self) -> u8 {
        match self {
            Self::ControlPlane => 2,
            Self::Vm => 3,
            Self::Pod => 4,
            Self::Outside => 5,
            Self::Gateway => 8,
            Self::SecondControlPlane => 12,
            Self::SecondPod => 14,
            Self::SecondCatalog => 15,
            Self::SecondGateway => 16,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ControlPlane => "cp",
            Self::Vm => "vm",
            Self::Pod => "pod",
            Self::Outside => "out",
            Self::Gateway => "gw",
            Self::SecondControlPlane => "cp2",
            Self::SecondPod => "pod2",
            Self::SecondCatalog => "cat2",
            Self::SecondGateway => "gw2",
        })
    }
}

/// The way in which a program in a namespace sees /etc/hosts and /etc/resolv.conf.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EtcView {
    /// Plain files in an /etc of the host's own, as on a VM: they can be renamed over.
    #[default]
    Plain,
    /// Mount points, as under `ip netns exec` and in containers: they can only be written in place.
    MountPoints,
}

/// The namespaces, and a folder for all that belongs to the case. Dropped: all gone, whatever still ran in them too.
#[derive(Debug)]
pub struct Network {
    id: String,
    folder: PathBuf,
}

impl Network {
    /// Makes the namespaces `e2e-PID-N-{sw,cp,vm,pod,out}`.
    pub fn new() -> Result<Self> {
        Self::with_hosts(&Host::OF_ONE_CLUSTER)
    }

    /// The same, and the hosts of a second cluster with a gateway for each.
    pub fn of_two_clusters() -> Result<Self> {
        Self::with_hosts(&[Host::OF_ONE_CLUSTER.as_slice(), &Host::OF_THE_SECOND].concat())
    }

    /// Lets nothing pass between two groups of hosts but TCP to and from `ports`.
    pub fn fence(&self, groups: [&[Host]; 2], ports: &[u16]) -> Result<()> {
        let [one, two] = groups.map(|hosts| hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(", "));
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let ports = ports.join(", ");
        let rules = format!(
            "table bridge fence {{ chain forward {{ type filter hook forward priority 0; ether type arp accept; \
             tcp dport {{ {ports} }} accept; tcp sport {{ {ports} }} accept; \
             iifname {{ {one} }} oifname {{ {two} }} drop; iifname {{ {two} }} oifname {{ {one} }} drop; }}; }}"
        );
        let switch = format!("{}-sw", self.id);
        ip(&["netns", "exec", &switch, "nft", &rules])
    }

    fn with_hosts(hosts: &[Host]) -> Result<Self> {
        sweep::leftovers_once()?;
        let id = format!(
            "{}{}-{}",
            sweep::PREFIX,
            std::process::id(),
            // Of all that this run makes by that name.
            programs::next_number()
        );
        let folder = std::env::temp_dir().join(&id);
        fs::create_dir_all(&folder)?;
        // From here on drop cleans up, also after a failure below.
        let network = Self { id, folder };
        network
            .build(hosts)
            .context("failed to make the namespaces (root and iproute2 are needed)")?;
        Ok(network)
    }

    fn build(&self, hosts: &[Host]) -> Result<()> {
        let switch = format!("{}-sw", self.id);
        ip(&["netns", "add", &switch])?;
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &switch, "addr", "add", "10.200.0.1/24", "dev", "br0"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for &host in hosts {
            let ns = self.namespace(host);
            let port = host.to_string();
            ip(&["netns", "add", &ns])?;
            ip(&["-n", &ns, "link", "set", "lo", "up"])?;
            ip(&[
                "-n", &ns, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch,
            ])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &ns, "addr", "add", &format!("{}/24", host.ipv4()), "dev", "eth0"])?;
            // A link-local address would come a second later, by itself, and look like a change of the agent's.
            ip(&["-n", &ns, "link", "set", "eth0", "addrgenmode", "none"])?;
            ip(&["-n", &ns, "link", "set", "eth0", "up"])?;
            ip(&[
                "-n",
                &ns,
                "-6",
                "addr",
                "add",
                &format!("{}/64", host.ipv6()),
                "dev",
                "eth0",
                "nodad",
            ])?;
            ip(&["-n", &ns, "route", "add", "default", "via", "10.200.0.1"])?;
            PrivateEtc::create(&self.etc(host))?;
            PrivateEtc::create_for_ip_netns(&ns)?;
        }
        Ok(())
    }

    /// The name of a host's namespace.
    pub fn namespace(&self, host: Host) -> String {
        format!("{}-{host}", self.id)
    }

    /// Text that is unique to the network and in the name of all that belongs to it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The case's folder; short enough for unix sockets.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A host's own /etc.
    pub fn etc(&self, host: Host) -> PathBuf {
        self.folder.join(format!("etc-{host}"))
    }

    /// The host's hosts file, as programs with that view of /etc see it.
    pub fn hosts_file(&self, host: Host, view: EtcView) -> PathBuf {
        match view {
            EtcView::Plain => self.etc(host).join("hosts"),
            EtcView::MountPoints => Path::new("/etc/netns").join(self.namespace(host)).join("hosts"),
        }
    }

    /// `program` on `host`, not started yet. It keeps its pid through all the wrappers.
    pub fn command(&self, host: Host, view: EtcView, program: impl AsRef<Path>) -> Command {
        let ns = self.namespace(host);
        match view {
            EtcView::Plain => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={NETNS}/{ns}"));
                command.args(["unshare", "--mount", "sh", "-c"]);
                command
                    .arg(r#"mount --bind "$0" /etc && exec "$@""#)
                    .arg(self.etc(host));
                command.arg(program.as_ref());
                command
            }
            EtcView::MountPoints => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &ns]).arg(program.as_ref());
                command
            }
        }
    }

    /// Starts `program` on `host`.
    pub fn spawn(&self, host: Host, name: &str, program: impl AsRef<Path>, args: &[&str]) -> Result<Process> {
        let mut command = self.command(host, EtcView::Plain, program);
        command.args(args);
        Process::spawn(&format!("{name}@{host}"), command, &self.folder)
    }

    /// Runs `program` on `host` to its end; its stdout, or an error with its stderr.
    pub fn run(&self, host: Host, program: &str, args: &[&str]) -> Result<String> {
        let mut command = self.command(host, EtcView::Plain, program);
        command.args(args);
        output_of(command)
    }

    /// The pid of a program that runs on `host`, by its name.
    pub fn pid_of(&self, host: Host, name: &str) -> Result<u32> {
        let pids = sweep::pids_in(&self.namespace(host));
        let named =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim_end() == name);
        let pid = pids.into_iter().find(named).and_then(|pid| u32::try_from(pid).ok());
        pid.with_context(|| format!("no {name} runs on {host}"))
    }

    /// Does `work` in a host's network namespace; a socket made there stays there.
    pub fn within<T: Send>(&self, host: Host, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within_namespace(&self.namespace(host), work)
    }

    /// `ip:port` of a host.
    pub fn address(host: Host, port: u16) -> String {
        std::net::SocketAddr::new(IpAddr::V4(host.ipv4()), port).to_string()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let keep = thread::panicking() || std::env::var_os("E2E_KEEP").is_some();
        sweep::remove(&self.id);
        if !keep {
            // The next run's sweep takes what this one can't.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Does `work` in the network namespace of that name.
pub(crate) fn within_namespace<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    namespace::within(&Path::new(NETNS).join(name), work)
}

fn ip(args: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(args);
    output_of(command).map(drop)
}
