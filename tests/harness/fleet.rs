//! Many VMs of one mesh at once: real agents, each with a network namespace, an /etc and folders of its own, and in the
//! place of Envoy a program that asks for its configuration and secrets as Envoy does. They take no traffic in.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::files::PrivateEtc;
use crate::network::{Host, Network};
use crate::process::{Process, output_of, resident};
use crate::{cgroup, programs};

/// Ports that a bridge may have, less those of the other hosts.
pub const MOST: usize = 1015;
/// Address of the control plane's link: thousands of neighbours that ask each other would fill the kernel's table.
const CONTROL_PLANE: &str = "02:00:0a:c8:00:02";
/// In the VM's namespaces: makes its link, then becomes the agent.
const ENTER: &str = r#"mount --bind "$0" /etc && nsenter --net="$1" ip link add "$2" master br0 up type veth peer \
    name eth0 address "$3" netns $$ && ip -batch "$4" && shift 4 && exec "$@""#;

/// The agents, in the order of their start. Dropped: killed; what they started is the network's to sweep.
#[derive(Debug)]
pub struct Fleet {
    bundle: PathBuf,
    program: PathBuf,
    envoy: PathBuf,
    agents: Vec<Process>,
}

impl Fleet {
    /// Makes room for `size` VMs, which join by this bundle; `program` is the agent, `None` the one beside what runs.
    pub fn new(network: &Network, bundle: PathBuf, program: Option<PathBuf>, size: usize) -> Result<Self> {
        ensure!(size <= MOST, "a fleet has at most {MOST} VMs");
        let envoy = network.folder().join("envoy-stand-in");
        let built = programs::envoy_stand_in()?;
        fs::copy(&built, &envoy).with_context(|| format!("failed to copy {}", built.display()))?;
        let links = (0..size).map(|index| {
            let (address, link) = (address(index), link_address(index));
            format!("neigh add {address} lladdr {link} dev eth0 nud permanent\n")
        });
        let lines = format!(
            "link set eth0 address {CONTROL_PLANE}\nroute add 10.201.0.0/16 dev eth0\n{}",
            links.collect::<String>()
        );
        let file = network.folder().join("fleet.ip");
        fs::write(&file, lines)?;
        let mut command = Command::new("ip");
        command
            .args(["-n", &network.namespace(Host::ControlPlane), "-batch"])
            .arg(file);
        output_of(command)?;
        Ok(Self {
            bundle,
            program: program.map_or_else(programs::agent, Ok)?,
            envoy,
            agents: Vec::new(),
        })
    }

    /// Starts one more.
    pub fn start(&mut self, network: &Network) -> Result<()> {
        let index = self.agents.len();
        let name = format!("vm{index}");
        let folder = network.folder().join(&name);
        PrivateEtc::create(&folder.join("etc"))?;
        let (config, links) = (folder.join("config.toml"), folder.join("links.ip"));
        fs::write(&config, self.configuration(&folder, index))?;
        fs::write(
            &links,
            format!(
                "link set lo up\nlink set eth0 addrgenmode none\nlink set eth0 up\naddr add {}/32 dev eth0\n\
                 neigh add {} lladdr {CONTROL_PLANE} dev eth0 nud permanent\nroute add default dev eth0\n",
                address(index),
                Host::ControlPlane.ipv4()
            ),
        )?;
        let mut command = cgroup::command_within(network.id(), "unshare")?;
        command
            .args(["--net", "--mount", "sh", "-c", ENTER])
            .arg(folder.join("etc"));
        command.arg(format!("/run/netns/{}-sw", network.id()));
        command.args([&name, &link_address(index)]).arg(links);
        command.arg(&self.program).args(["run", "--config"]).arg(config);
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        self.agents.push(Process::spawn(&name, command, network.folder())?);
        Ok(())
    }

    /// The agents.
    pub fn agents(&mut self) -> &mut [Process] {
        &mut self.agents
    }

    /// An error once any has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        self.agents.iter_mut().try_for_each(Process::check_alive)
    }

    /// Anonymous memory of each agent, in bytes.
    pub fn memory(&self) -> Result<Vec<u64>> {
        self.agents
            .iter()
            .map(|agent| resident(agent.pid(), "RssAnon"))
            .collect()
    }

    /// Open descriptors of each agent.
    pub fn descriptors(&self) -> Result<Vec<usize>> {
        let of = |agent: &Process| Ok(fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count());
        self.agents.iter().map(of).collect()
    }

    fn configuration(&self, folder: &Path, index: usize) -> String {
        let [state, run] = ["state", "run"].map(|name| folder.join(name));
        format!(
            "[join]\ndirectory = {{ path = {:?} }}\n\
             [network]\naddress = \"{}\"\nname = \"vm{index}\"\n\
             [intercept]\nbackend = \"none\"\n\
             [envoy]\nbinary = {:?}\n\
             [paths]\nstate = {state:?}\nrun = {run:?}\n",
            self.bundle,
            address(index),
            self.envoy,
        )
    }
}

/// In 10.201.0.0/16, from 10.201.1.0 on.
fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 201, 1, 0).to_bits() + index as u32)
}

fn link_address(index: usize) -> String {
    let [a, b, c, d] = address(index).octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}
