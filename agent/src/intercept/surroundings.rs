//! The machine as the rules need to know it: its resolvers, where its own connections come from, and its bridges.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use super::capture::EPHEMERAL_PORTS;
use super::sshd;
use crate::facts::HostBridge;
use crate::host::{Host, Read, ResolvConf};
use anyhow::{Context, Result};

const MAX_BYTES: usize = 64 << 10;
/// dockerd's configuration, and the interface of its default network where that names none.
const DAEMON_JSON: &str = "/etc/docker/daemon.json";
const DOCKER_BRIDGE: &str = "docker0";
/// Where the dockerd that runs writes its process down.
const DOCKER_PID: &str = "/run/docker.pid";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// The servers behind systemd-resolved, which Docker gives to containers in place of one on loopback.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// Two numbers, first and last, of both families.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Surroundings {
    pub(super) dns_servers: Vec<IpAddr>,
    /// Servers that containers ask: those of this VM that are not on its loopback, or those behind them.
    pub(super) container_dns_servers: Vec<IpAddr>,
    pub(super) ephemeral_ports: RangeInclusive<u16>,
    /// Ports of sshd, whatever it is told to listen on.
    pub(super) ssh_ports: Vec<u16>,
    /// All bridges.
    pub(super) bridges: Vec<HostBridge>,
}

impl Surroundings {
    pub(super) fn of(host: &Host) -> Result<Self> {
        let servers_of = |file| {
            let conf = host.resolv_conf(Path::new(file));
            let conf = conf.context("failed to read the resolvers")?.unwrap_or_default();
            anyhow::Ok(addresses(&conf))
        };
        let dns_servers = servers_of(RESOLV_CONF)?;
        let range = host
            .read(Path::new(PORT_RANGE), Read::max(MAX_BYTES).following_links())
            .context("failed to read the ports of this VM's own connections")?;
        Ok(Self {
            container_dns_servers: for_containers(&dns_servers, &servers_of(RESOLVED_CONF)?),
            dns_servers,
            ephemeral_ports: range.as_deref().and_then(port_range).unwrap_or(EPHEMERAL_PORTS),
            ssh_ports: sshd::ports(host),
            bridges: host.bridges().context("failed to list the bridges")?,
        })
    }
}

/// The interface of Docker's default network, as dockerd's command line or daemon.json names it; dockerd refuses to start
/// where both do.
pub(super) fn docker_bridge(host: &Host) -> String {
    let text = read(host, Path::new(DAEMON_JSON)).unwrap_or_default();
    let named = |config: serde_json::Value| Some(config.get("bridge")?.as_str()?.to_owned());
    let name = serde_json::from_str(&text).ok().and_then(named);
    bridge_of_command_line(host)
        .or(name)
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| DOCKER_BRIDGE.to_owned())
}

/// The interface that the dockerd which runs was started with; a number that another process has by now is no dockerd's.
fn bridge_of_command_line(host: &Host) -> Option<String> {
    let pid: u32 = read(host, Path::new(DOCKER_PID))?.trim().parse().ok()?;
    let line = read(host, &Path::new("/proc").join(pid.to_string()).join("cmdline"))?;
    let mut words = line.split('\0');
    words.next().filter(|program| program.ends_with("dockerd"))?;
    while let Some(word) = words.next() {
        match word.split_once('=') {
            Some(("--bridge" | "-b", name)) => return Some(name.to_owned()),
            None if word == "--bridge" || word == "-b" => return words.next().map(str::to_owned),
            _ => {}
        }
    }
    None
}

fn read(host: &Host, path: &Path) -> Option<String> {
    host.read(path, Read::max(MAX_BYTES).following_links()).ok().flatten()
}

/// The servers that Docker writes into a container's resolv.conf, or has its own resolver (127.0.0.11) ask from the
/// container's namespace. What that asks on loopback it asks from this VM's, as any program does.
fn for_containers(servers: &[IpAddr], behind: &[IpAddr]) -> Vec<IpAddr> {
    let reached = |servers: &[IpAddr]| {
        servers
            .iter()
            .copied()
            .filter(|it| !it.is_loopback())
            .collect::<Vec<_>>()
    };
    match reached(servers) {
        none if none.is_empty() => reached(behind),
        own => own,
    }
}

/// The addresses of the servers whose queries can be redirected, each once.
fn addresses(resolv_conf: &ResolvConf) -> Vec<IpAddr> {
    let servers = resolv_conf.servers.iter().filter(|server| server.is_redirectable());
    let mut addresses: Vec<IpAddr> = servers.map(|server| server.address).collect();
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_servers_are_addresses_that_can_be_redirected_each_once() {
        let conf = ResolvConf::parse("nameserver fe80::1%eth0\nnameserver 10.0.0.1\nnameserver fd00::1\n");
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(addresses(&conf), expected);
    }

    #[test]
    fn containers_ask_the_servers_behind_one_on_loopback() {
        let servers = |list: &[&str]| -> Vec<IpAddr> { list.iter().map(|ip| ip.parse().unwrap()).collect() };
        let behind = servers(&["10.0.0.2"]);
        for (own, wanted) in [
            (servers(&["127.0.0.53"]), &behind),
            (servers(&["127.0.0.1", "10.0.0.9"]), &servers(&["10.0.0.9"])),
            (servers(&["169.254.169.254"]), &servers(&["169.254.169.254"])),
        ] {
            assert_eq!(for_containers(&own, &behind), *wanted, "{own:?}");
        }
    }

    #[test]
    fn default_bridge_is_the_one_that_docker_is_told() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), crate::host::System);
        assert_eq!(docker_bridge(&host), "docker0");
        std::fs::create_dir_all(root.path().join("etc/docker")).unwrap();
        for (text, wanted) in [
            (r#"{ "bridge": "lan0", "ip": "127.0.0.1" }"#, "lan0"),
            (r#"{ "bridge": "" }"#, "docker0"),
            ("{", "docker0"),
        ] {
            std::fs::write(root.path().join("etc/docker/daemon.json"), text).unwrap();
            assert_eq!(docker_bridge(&host), wanted, "{text}");
        }
        std::fs::create_dir_all(root.path().join("proc/7")).unwrap();
        std::fs::create_dir_all(root.path().join("run")).unwrap();
        std::fs::write(root.path().join("run/docker.pid"), "7\n").unwrap();
        for (line, wanted) in [
            ("/usr/bin/dockerd\0-H\0fd://\0--bridge\0lab0\0", "lab0"),
            ("dockerd\0-b=lab0\0--debug\0", "lab0"),
            ("dockerd\0--bridge=lab0\0", "lab0"),
            ("dockerd\0--bip=10.0.0.1/24\0", "docker0"),
            ("/bin/sh\0--bridge=lab0\0", "docker0"),
        ] {
            std::fs::write(root.path().join("proc/7/cmdline"), line).unwrap();
            assert_eq!(docker_bridge(&host), wanted, "{line:?}");
        }
    }
}
