//! The state of this VM, collected: from the host, the agent and Envoy, each bounded in time; istiod is not asked.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::time::timeout;

use super::access_log::{self, LastError};
use super::connection::Connection;
use super::name;
use super::question::Question;
use super::state::{Agent, Envoy, Resolver, State, Vm};
use super::target::Target;
use crate::app::parts;
use crate::cli::configuration::ConfigSource;
use crate::cli::status::status;
use crate::config::{Config, ports};
use crate::dns;
use crate::envoy::Admin;
use crate::envoy::view::{ClusterStatuses, Dump, Secret, views};
use crate::facts::Membership;
use crate::host::{Host, Invocation, Protocol, Read, network};
use crate::intercept::{self, Call, Hook, Rules};
use crate::join::Join;
use crate::part::{Site, Units};
use crate::status::{Agent as Answer, Status};

/// Longest that one command, or Envoy, may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Longest wait for the agent, by which one that is busy is told from one that is stuck.
const AGENT_TIMEOUT: Duration = Duration::from_millis(500);
/// Lines of the journal that are searched.
const JOURNAL_LINES: &str = "5000";
/// Longest log that is searched, in bytes.
const MAX_LOG: usize = 64 << 20;
/// Longest /etc/hosts that is read, in bytes.
const MAX_HOSTS: usize = 4 << 20;
const HOSTS: &str = "/etc/hosts";
/// The connections that netfilter follows, in this network namespace.
const CONNECTIONS: &str = "/proc/thread-self/net/nf_conntrack";
/// Longest list of them that is read, in bytes: some 300,000 connections.
const MAX_CONNECTIONS: usize = 64 << 20;
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS: u16 = 53;

/// The last failure in the access log: of a file, or of the agent's log in the journal.
pub(super) async fn last_error(file: Option<&Path>) -> Result<LastError> {
    let host = Host::system();
    let log = match file {
        Some(file) => {
            let bytes = host.read_bytes(file, Read::max(MAX_LOG).following_links())?;
            let bytes = bytes.with_context(|| format!("{} is missing", file.display()))?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        None => {
            let unit = "--unit=istio-vm-agent.service";
            let argv = [
                "journalctl",
                unit,
                "--output=cat",
                "--quiet",
                "--no-pager",
                "--lines",
                JOURNAL_LINES,
            ];
            let argv = argv.into_iter().chain(["TARGET=envoy::access"]);
            let call = Invocation::new(argv).within(LIMIT);
            let log = host.blocking(move |host| Ok(host.run(&call)?)).await;
            log.context("the access log is not in the journal: `--last-error=FILE` reads it elsewhere")?
        }
    };
    access_log::last_error(&log).context(
        "no failure is in the access log: either there was none, or the mesh has no access log (meshConfig.accessLogFile = \
         /dev/stdout), or one in another format than Istio's own",
    )
}

pub(super) async fn state(path: &Path, question: Question) -> Result<State> {
    let host = Host::system().hurried(LIMIT);
    let config = ConfigSource::at_hand_or_default(path, &host)?;
    let site = Site {
        config,
        host,
        units: Units::default(),
    };
    let sections: Vec<_> = parts(None).iter().flat_map(|part| part.sections()).collect();
    let admin = Admin::of(&site.host, &site.config.paths);
    let looked = {
        let (config, question) = (site.config.clone(), question.clone());
        site.host.blocking(move |host| Ok(look(host, &config, &question)))
    };
    let (status, envoy, looked) = tokio::join!(status(path, &site, &sections, AGENT_TIMEOUT), ask(&admin), looked);
    let Looked {
        vm,
        resolver,
        rules,
        connection,
        listening,
        closed,
    } = looked?;
    let bridged = envoy
        .as_ref()
        .map(|envoy| bridged(&site.host, envoy))
        .unwrap_or_default();
    Ok(State {
        now: SystemTime::now(),
        question,
        agent: agent(&status),
        vm,
        resolver,
        rules,
        connection,
        envoy,
        listening,
        closed,
        bridged,
    })
}

/// The bridges of this VM that endpoints without an answer are beyond, as the kernel's routes have it.
fn bridged(host: &Host, envoy: &Envoy) -> BTreeMap<IpAddr, String> {
    let hosts = envoy.statuses.iter().flat_map(|cluster| &cluster.host_statuses);
    let unanswered = hosts.filter(|host| host.is_tried_in_vain());
    let beyond = unanswered.filter_map(|endpoint| {
        let address: SocketAddr = endpoint.endpoint().parse().ok()?;
        let interface = host.interface_to(address).ok().flatten()?;
        (!network::leads_outside(&interface)).then_some((address.ip(), interface))
    });
    beyond.collect()
}

fn agent(status: &Status) -> Agent {
    Agent {
        silent: match &status.agent {
            Answer::NotAnswering { reason } => Some(reason.clone()),
            Answer::Joining { .. } | Answer::Running { .. } => None,
        },
        xds: status.section("xds").unwrap_or_default(),
        envoy: status.section("envoy").unwrap_or_default(),
        interception: status.section("interception").unwrap_or_default(),
        container: status.section("container").unwrap_or_default(),
        probe: status.section("probe").unwrap_or_default(),
    }
}

async fn ask(admin: &Admin) -> Result<Envoy, String> {
    let (dump, clusters) = ("/config_dump?include_eds", "/clusters?format=json");
    let asked = async { tokio::try_join!(admin.document(dump), admin.document(clusters)) };
    let answers = timeout(LIMIT, asked).await;
    let answers = answers.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {LIMIT:?}")));
    let read = || {
        let (dump, clusters) = answers?;
        let dump = Dump::parse(&dump).context("its /config_dump")?;
        let statuses: ClusterStatuses = serde_json::from_str(&clusters).context("its /clusters")?;
        anyhow::Ok(envoy(&dump, statuses))
    };
    read().map_err(|error: anyhow::Error| format!("{error:#}"))
}

pub(super) fn envoy(dump: &Dump, statuses: ClusterStatuses) -> Envoy {
    Envoy {
        listeners: views(&dump.listeners),
        routes: views(&dump.routes),
        clusters: views(&dump.clusters),
        endpoints: views(&dump.endpoints),
        statuses: statuses.cluster_statuses,
        secrets: dump.secrets.iter().map(Secret::of).collect(),
        refused: dump.refused.clone(),
    }
}

/// Answers of files, commands and the kernel.
struct Looked {
    vm: Vm,
    resolver: Resolver,
    rules: Result<Rules, String>,
    connection: Option<Result<Option<Connection>, String>>,
    listening: Vec<SocketAddr>,
    closed: Result<(Vec<u16>, Vec<String>), String>,
}

/// Blocks.
fn look(host: &Host, config: &Config, question: &Question) -> Looked {
    let membership = Join::open(config, host).map_err(anyhow::Error::from);
    let membership = membership
        .and_then(|join| join.at_hand())
        .map_err(|error| format!("{error:#}"));
    let known = membership.as_ref().ok().and_then(Option::as_ref);
    let vm = vm(config, known);
    let resolver = resolver(host, config, known, &question.target);
    let rules = match &membership {
        Ok(Some(membership)) => rules(host, config, membership, question, &vm, &resolver),
        Ok(None) => Err("the join source has given no membership yet".to_owned()),
        Err(error) => Err(error.clone()),
    };
    let (hook, port, address) = match &question.target {
        Target::Inbound { peer, .. } => (Hook::Input, vm.inbound_listener(), *peer),
        Target::Outbound { host, .. } => {
            let addresses = name::addresses(&resolver, &vm.namespace, host);
            let of_call = rules.as_ref().ok().and_then(|it| it.traces.get(resolver.servers.len()));
            let outbound = known.map_or(ports::OUTBOUND, |it| intercept::envoy_ports(it).0);
            let port = of_call.and_then(|trace| trace.redirected).unwrap_or(outbound);
            (Hook::Output, port, addresses.first().copied())
        }
    };
    let families = match (address, known) {
        (Some(address), _) => (address.is_ipv4(), address.is_ipv6()),
        (None, Some(membership)) => membership.families(),
        (None, None) => (true, true),
    };
    let closed = intercept::closed_ports(host, hook, &[port], families).map_err(|error| format!("{error:#}"));
    Looked {
        listening: host.listening(Protocol::Tcp),
        connection: connection(host, &question.target),
        vm,
        resolver,
        rules,
        closed,
    }
}

/// Entry of conntrack for a connection that is named by both its ends.
fn connection(host: &Host, target: &Target) -> Option<Result<Option<Connection>, String>> {
    let Target::Inbound {
        peer: Some(peer),
        peer_port: Some(peer_port),
        port,
    } = *target
    else {
        return None;
    };
    let table = host.read_bytes(Path::new(CONNECTIONS), Read::max(MAX_CONNECTIONS));
    Some(match table {
        Ok(Some(table)) => {
            let table = String::from_utf8_lossy(&table);
            Ok(Connection::find(
                &table,
                SocketAddr::new(peer, peer_port),
                network::is_own,
                port,
            ))
        }
        Ok(None) => Err(format!("this kernel has no {CONNECTIONS}, or follows no connections")),
        Err(error) => Err(error.to_string()),
    })
}

fn vm(config: &Config, membership: Option<&Membership>) -> Vm {
    let containers = config
        .workloads
        .iter()
        .filter_map(|workload| Some((workload, workload.container.as_ref()?)));
    let published = containers.flat_map(|(workload, container)| {
        let ports = container.published().iter();
        ports.map(|port| (port.host, workload.name.clone()))
    });
    Vm {
        addresses: membership.map(|it| it.instance_ips.clone()).unwrap_or_default(),
        namespace: membership.map(|it| it.spiffe_id.namespace.clone()).unwrap_or_default(),
        inbound_ports: membership.and_then(|it| it.inbound_ports.clone()),
        inbound_listener: membership.map(|it| intercept::envoy_ports(it).1),
        published: published.collect(),
    }
}

fn resolver(host: &Host, config: &Config, membership: Option<&Membership>, target: &Target) -> Resolver {
    let Target::Outbound { host: name, .. } = target else {
        return Resolver::default();
    };
    let conf = host
        .resolv_conf(Path::new(RESOLV_CONF))
        .ok()
        .flatten()
        .unwrap_or_default();
    let hosts = host.read_bytes(Path::new(HOSTS), Read::max(MAX_HOSTS).following_links());
    let hosts = hosts.ok().flatten().unwrap_or_default();
    let is_agents = |address: &SocketAddr| address.port() == ports::DNS;
    Resolver {
        hosts: in_hosts(&String::from_utf8_lossy(&hosts), name),
        past_dns: dns::is_passed_by(host),
        servers: conf.servers.iter().map(|server| server.address).collect(),
        search: conf.search,
        captured: membership.is_some_and(|it| it.dns_capture),
        served: host.listening(Protocol::Udp).iter().any(is_agents),
        table: host.name_table(&config.paths.names()).ok().flatten(),
    }
}

/// The addresses that a hosts(5) has for a name, in their order.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    lines.collect()
}

/// The ways of a query to each name server, and of the call.
fn rules(
    host: &Host,
    config: &Config,
    membership: &Membership,
    question: &Question,
    vm: &Vm,
    resolver: &Resolver,
) -> Result<Rules, String> {
    let query = |server: &IpAddr| Call {
        inbound: false,
        udp: true,
        source: None,
        destination: SocketAddr::new(*server, DNS),
        interface: None,
        owner: question.owner,
    };
    let to = |ip: Option<&IpAddr>, port: u16| ip.map(|ip| SocketAddr::new(*ip, port));
    let call = match &question.target {
        Target::Outbound { host: name, port, .. } => {
            let addresses = name::addresses(resolver, &vm.namespace, name);
            to(addresses.first(), *port).map(|destination| Call {
                udp: false,
                interface: host.interface_to(destination).ok().flatten(),
                destination,
                ..query(&destination.ip())
            })
        }
        Target::Inbound { peer, port, .. } => to(vm.addresses.first(), *port).map(|destination| Call {
            inbound: true,
            udp: false,
            source: *peer,
            interface: Some(String::new()),
            destination,
            owner: None,
        }),
    };
    let calls: Vec<Call> = resolver.servers.iter().map(query).chain(call).collect();
    let options = intercept::Options::new(host.clone(), config);
    intercept::trace(membership, &options, &calls).map_err(|error| format!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_in_hosts_has_its_addresses_in_order() {
        let text = "127.0.0.1 localhost\n10.0.0.1 a cart # cart2\n# 10.0.0.2 cart\nfd00::1\tCART\nbad cart\n";
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(in_hosts(text, "cart"), expected);
        assert!(in_hosts(text, "cart2").is_empty());
    }
}
