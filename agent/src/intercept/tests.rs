//! Istio's reference cases: settings in, iptables-restore input out. And a machine without the programs.

use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::capture::{Bridges, Capture, EPHEMERAL_PORTS, Select, Style};
use super::rules::{Chain, Family, Match, Verdict};
use super::surroundings::Surroundings;
use super::{Bridge, Carrier, Directions, Interception, Options, Ruleset};
use crate::config::{Backend, ports};
use crate::control_plane::fixtures;
use crate::facts::{HostBridge, Membership};
use crate::host::change::HostChange;
use crate::host::{CommandError, Host, Invocation, Run};

/// TPROXY is not built yet. Listed here so that none is passed over silently.
const NOT_BUILT: [&str; 3] = ["tproxy", "inbound-ports-tproxy", "inbound-ports-wildcard-tproxy"];

/// Every setting that a case may have; another one fails the test instead of being passed over.
const SETTINGS: [&str; 20] = [
    "DNSServersV4",
    "DNSServersV6",
    "DropInvalid",
    "EnableIPv6",
    "ExcludeInterfaces",
    "HostIPv4LoopbackCidr",
    "InboundCapturePort",
    "InboundPortsExclude",
    "InboundPortsInclude",
    "InboundTProxyMark",
    "InboundTProxyRouteTable",
    "InboundTunnelPort",
    "OutboundIPRangesExclude",
    "OutboundIPRangesInclude",
    "OutboundPortsInclude",
    "OwnerGroupsExclude",
    "OwnerGroupsInclude",
    "ProxyPort",
    "RedirectDNS",
    "RerouteVirtualInterfaces",
];

struct Case(Map<String, Value>);

impl Case {
    fn text(&self, key: &str) -> &str {
        self.0.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    fn is(&self, key: &str) -> bool {
        self.0.get(key).and_then(Value::as_bool).unwrap_or_default()
    }

    fn list<T: std::str::FromStr>(&self, key: &str) -> Vec<T> {
        let parse = |item: &str| item.parse().unwrap_or_else(|_| panic!("{key}: {item}"));
        self.text(key)
            .split(',')
            .filter(|item| !item.is_empty())
            .map(parse)
            .collect()
    }

    fn select<T: std::str::FromStr>(&self, key: &str) -> Select<T> {
        if self.text(key) == "*" {
            Select::All
        } else {
            Select::Only(self.list(key))
        }
    }

    fn capture(&self) -> Capture {
        let servers = |key| self.0.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
        let mut dns_servers = servers("DNSServersV4");
        dns_servers.extend(servers("DNSServersV6"));
        dns_servers.retain(|_| self.is("RedirectDNS"));
        Capture {
            style: Style::Istio,
            proxy_port: self.text("ProxyPort").parse().unwrap(),
            inbound_capture_port: self.text("InboundCapturePort").parse().unwrap(),
            proxy_uids: self.list("ProxyUID"),
            proxy_gids: self.list("ProxyGID"),
            inbound_ports_include: self.select("InboundPortsInclude"),
            inbound_ports_exclude: self.list("InboundPortsExclude"),
            outbound: true,
            outbound_ip_ranges_include: self.select("OutboundIPRangesInclude"),
            outbound_ip_ranges_exclude: self.list("OutboundIPRangesExclude"),
            outbound_ports_include: self.list("OutboundPortsInclude"),
            outbound_ports_exclude: Vec::new(),
            owner_groups_include: self.select("OwnerGroupsInclude"),
            owner_groups_exclude: self.list("OwnerGroupsExclude"),
            exclude_interfaces: self.list("ExcludeInterfaces"),
            reroute_virtual_interfaces: self.list("RerouteVirtualInterfaces"),
            dns_servers: dns_servers
                .iter()
                .map(|ip| ip.as_str().unwrap().parse().unwrap())
                .collect(),
            host_ipv4_loopback: self.text("HostIPv4LoopbackCidr").parse::<IpNet>().unwrap(),
            drop_invalid: self.is("DropInvalid"),
            ..Capture::default()
        }
    }
}

fn golden(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/iptables")
        .join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rules of a golden: without the commands around them, and with one spelling of an option and of an address
/// that iptables-restore reads both ways.
fn expected(name: &str) -> String {
    golden(&format!("{name}.golden"))
        .lines()
        .filter(|line| !line.ends_with("-save"))
        .map(|line| {
            line.replace("--to-port ", "--to-ports ")
                .replace("::127.0.0.53", "::7f00:35")
                + "\n"
        })
        .collect()
}

#[test]
fn the_reference_cases_give_istio_s_rules() {
    let cases: Value = serde_json::from_str(&golden("cases.json")).unwrap();
    let (mut tried, mut wrong) = (0, Vec::new());
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        if NOT_BUILT.contains(&name) {
            continue;
        }
        let mut settings = cases["defaults"].as_object().unwrap().clone();
        settings.extend(case["config"].as_object().unwrap().clone());
        let unknown = settings
            .keys()
            .find(|key| !SETTINGS.contains(&key.as_str()) && !["ProxyUID", "ProxyGID"].contains(&key.as_str()));
        assert_eq!(unknown, None, "{name}");
        let case = Case(settings);
        let rules = case.capture().rules();
        let mut script = super::iptables::script(&rules, Family::V4);
        if case.is("EnableIPv6") {
            script += &super::iptables::script(&rules, Family::V6);
        }
        tried += 1;
        if script != expected(name) {
            wrong.push(format!(
                "{name}:\n{}",
                super::diff(&expected(name), &script, name).unwrap_or_default()
            ));
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{}", wrong.join("\n"));
    assert_eq!(tried, 24);
}

#[test]
fn the_vm_of_the_demo_gets_istio_s_rules() {
    let capture = Capture {
        style: Style::Istio,
        inbound_ports_include: Select::Only(vec![3550]),
        outbound_ip_ranges_include: Select::All,
        dns_servers: vec!["10.200.0.2".parse().unwrap()],
        ..Capture::default()
    };
    assert_eq!(
        super::iptables::script(&capture.rules(), Family::V4),
        expected("vm-productcatalog")
    );
}

/// A machine on which nothing is installed.
#[derive(Debug)]
struct Bare;

impl Run for Bare {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        Err(CommandError::NotFound {
            call: Box::new(call.clone()),
        })
    }
}

#[test]
fn a_missing_program_is_told_with_its_package() {
    let host = Host::new("/nonexistent", Bare);
    let rules = Capture::default().rules();
    let told = |carrier: Carrier| format!("{:#}", carrier.apply(&host, &rules).unwrap_err());
    assert_eq!(
        told(Carrier::Nftables),
        "`nft` is not installed; install the package nftables, or set intercept.backend"
    );
    assert_eq!(
        told(Carrier::Iptables),
        "`iptables` is not installed; install the package iptables, or set intercept.backend"
    );
    assert_eq!(
        Carrier::choose(&host, Backend::Auto, &rules).unwrap(),
        Carrier::Iptables
    );
    assert!(!super::present(&host).unwrap());
    assert_eq!(super::owned_rules().plan(&host).unwrap(), None);
    super::owned_rules().revert(&host).unwrap();
}

/// A machine whose kernel has no rules for bridges.
#[derive(Debug)]
struct WithoutBridges;

impl Run for WithoutBridges {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let is_asked_to_list = call.argv.iter().any(|word| word == "list");
        let [status, stderr] = match call.stdin.contains("table bridge") {
            true => ["exit status: 1", "Operation not supported"],
            false if is_asked_to_list => ["exit status: 1", "No such file or directory"],
            false => return Ok(String::new()),
        }
        .map(str::to_owned);
        let call = Box::new(call.clone());
        Err(CommandError::Failed { call, status, stderr })
    }
}

#[test]
fn bridge_without_rules_is_open_unless_what_it_passes_on_meets_those_for_ip() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), WithoutBridges);
    let capture = Capture::of_a_container();
    let open = |capture: &Capture| {
        let change = Interception::new(&host, Backend::Nftables, capture.rules()).unwrap();
        change.open_bridge(&host)
    };
    assert!(open(&capture).is_some_and(|error| format!("{error:#}").contains("Operation not supported")));
    assert!(open(&Capture::default()).is_none(), "there is no application");
    let switches = root.path().join("proc/sys/net/bridge");
    std::fs::create_dir_all(&switches).unwrap();
    std::fs::write(switches.join("bridge-nf-call-iptables"), "1\n").unwrap();
    assert!(open(&capture).is_some(), "IPv6 is open");
    std::fs::write(switches.join("bridge-nf-call-ip6tables"), "1\n").unwrap();
    assert!(open(&capture).is_none());
}

#[test]
fn bridge_is_closed_by_what_check_says() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), WithoutBridges);
    let rules = Capture::of_a_container().rules();
    let change = Interception::new(&host, Backend::Nftables, rules).unwrap();
    assert!(change.open_bridge(&host).is_some());
    let (_, settings) = super::check::MEET_IP.split_once("sysctl -w ").unwrap();
    for setting in settings.split([' ', ',']).take_while(|word| !word.is_empty()) {
        let (name, value) = setting.split_once('=').unwrap();
        let file = root.path().join("proc/sys").join(name.replace('.', "/"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, value).unwrap();
    }
    assert!(change.open_bridge(&host).is_none());
}

#[test]
fn a_direction_that_is_off_has_no_rules() {
    let capture = Capture {
        outbound: false,
        ..Capture::default()
    };
    assert_eq!(capture.rules(), Ruleset::default());
    let inbound = Capture {
        inbound_ports_include: Select::Only(vec![3550]),
        ..capture
    };
    let script = super::iptables::script(&inbound.rules(), Family::V4);
    assert!(
        script.contains("-I PREROUTING 1") && !script.contains("-j ISTIO_REDIRECT"),
        "{script}"
    );
}

/// Packets of the kernel's after the program's end (the FIN again, a reset) have no owner: were they dropped, the other
/// side would wait for it for minutes.
#[test]
fn no_packet_of_nobody_is_dropped_on_its_way_to_the_application() {
    let capture = Capture {
        inbound_ports_include: Select::Only(vec![3550]),
        outbound_ip_ranges_include: Select::All,
        bridges: Bridges {
            application: Some(Bridge {
                interface: "docker0".to_owned(),
                ports: vec!["3550:8080".parse().unwrap()],
                cloud_identity: false,
            }),
            ..Bridges::default()
        },
        ..Capture::default()
    };
    let mut seen = 0;
    for rule in capture.rules().rules {
        let is_drop = rule.chain == Chain::IstioLocal && rule.verdict == Verdict::Drop;
        let to = |port| rule.matches.contains(&Match::DestPorts(vec![port]));
        if is_drop && rule.matches.contains(&Match::Tcp) && (to(3550) || to(8080)) {
            seen += 1;
            let says = |what| rule.matches.contains(what);
            assert!(says(&Match::Syn) || says(&Match::Owned), "{rule:?}");
        }
    }
    assert_eq!(seen, 4);
}

/// To ask for the owner takes longer than all other matches of a packet together.
#[test]
fn envoy_s_packets_to_the_application_are_asked_for_their_owner_once() {
    let capture = Capture {
        inbound_ports_include: Select::Only(vec![3550]),
        ..Capture::default()
    };
    let rules = capture.rules().rules;
    let first = rules.iter().find(|rule| rule.chain == Chain::IstioLocal).unwrap();
    assert_eq!(first.matches, [Match::Uid(ports::PROXY_UID)]);
    assert_eq!(first.verdict, Verdict::Return);
}

/// The rules of a VM that captures all ports.
fn all_captured(ssh_ports: &[u16]) -> Ruleset {
    let membership = Membership {
        inbound_ports: None,
        ..fixtures::membership()
    };
    rules_of(&membership, ssh_ports)
}

fn rules_of(membership: &Membership, ssh_ports: &[u16]) -> Ruleset {
    let surroundings = Surroundings {
        dns_servers: Vec::new(),
        ephemeral_ports: EPHEMERAL_PORTS,
        ssh_ports: ssh_ports.to_vec(),
        container_dns_servers: Vec::new(),
        bridges: Vec::new(),
    };
    let options = Options::by_default(Host::system());
    super::membership::ruleset(membership, &options, &surroundings, Directions::BOTH)
}

/// True when packets that match are let pass by a rule of this chain of the redirection.
fn passes(rules: &Ruleset, chain: Chain, wanted: &Match) -> bool {
    let of = |rule: &&super::rules::Rule| rule.table == super::rules::Table::Nat && rule.chain == chain;
    let mut rules = rules.rules.iter().filter(of);
    rules.any(|rule| rule.verdict == Verdict::Return && rule.matches.contains(wanted))
}

#[test]
fn wire_servers_of_every_cloud_are_reached_past_envoy() {
    let rules = all_captured(&[]);
    for server in [
        "169.254.169.254",
        "fd20:ce::254",
        "168.63.129.16",
        "fd00:ec2::254",
        "100.100.100.200",
    ] {
        let server: std::net::IpAddr = server.parse().unwrap();
        assert!(
            passes(&rules, Chain::IstioOutput, &Match::Dest(server.into())),
            "{server}"
        );
    }
}

#[test]
fn exclusions_of_the_bundle_pass_envoy_by() {
    let outbound = crate::facts::OutboundCapture {
        groups: Some(vec!["100".to_owned()]),
        exclude_groups: vec!["200".to_owned()],
        ports: vec![9092],
        ..Default::default()
    };
    let membership = Membership {
        inbound_ports: None,
        exclude_interfaces: vec!["eth1".to_owned()],
        outbound,
        ..fixtures::membership()
    };
    let rules = rules_of(&membership, &[]);
    assert!(passes(&rules, Chain::IstioInbound, &Match::In("eth1".to_owned())));
    assert!(passes(&rules, Chain::IstioOutput, &Match::Out("eth1".to_owned())));
    assert!(passes(&rules, Chain::IstioOutput, &Match::Gid("200".to_owned())));
    assert!(passes(&rules, Chain::IstioOutput, &Match::NotGid("100".to_owned())));
    let captured = |rule: &super::rules::Rule| rule.matches.contains(&Match::DestPort(9092));
    assert!(rules.rules.iter().any(captured));
    // Before anything else of its chain is asked.
    let first = |chain| {
        rules
            .rules
            .iter()
            .find(|rule| rule.table == super::rules::Table::Nat && rule.chain == chain)
    };
    let is_first = |chain, wanted: Match| first(chain).is_some_and(|rule| rule.matches == [wanted]);
    assert!(is_first(Chain::IstioInbound, Match::In("eth1".to_owned())));
    assert!(is_first(Chain::IstioOutput, Match::Out("eth1".to_owned())));
}

#[test]
fn sshd_is_reached_past_envoy_on_any_port() {
    let ssh = |rules: &Ruleset| passes(rules, Chain::IstioInbound, &Match::DestPort(2222));
    assert!(ssh(&all_captured(&[2222])));
    assert!(!ssh(&all_captured(&[])));
}

#[test]
fn calls_of_containers_are_captured_on_every_inner_bridge_that_is_not_excluded() {
    let bridge = |interface: &str, network: &str, is_inner| HostBridge {
        interface: interface.to_owned(),
        addresses: Vec::new(),
        networks: vec![network.parse().unwrap()],
        is_inner,
    };
    let surroundings = Surroundings {
        dns_servers: vec!["10.0.0.2".parse().unwrap()],
        container_dns_servers: vec!["10.0.0.2".parse().unwrap()],
        ephemeral_ports: EPHEMERAL_PORTS,
        ssh_ports: Vec::new(),
        bridges: vec![
            bridge("shop0", "172.18.0.0/16", true),
            bridge("br-build", "172.19.0.0/16", true),
            bridge("lab", "172.20.0.0/16", true),
            bridge("br0", "10.0.0.0/24", false),
        ],
    };
    let mut options = Options::by_default(Host::system());
    options.config.exclude_container_networks = vec!["172.19.0.0/16".parse().unwrap()];
    let membership = Membership {
        exclude_interfaces: vec!["lab".to_owned()],
        dns_capture: true,
        ..fixtures::membership()
    };
    let rules = super::membership::ruleset(&membership, &options, &surroundings, Directions::BOTH);
    let to_containers = |rule: &&super::rules::Rule| rule.verdict == Verdict::Jump(Chain::IstioContainer);
    let entered: Vec<_> = rules.rules.iter().filter(to_containers).collect();
    assert_eq!(entered.len(), 2, "one before and one after the redirect: {entered:?}");
    assert!(
        entered
            .iter()
            .all(|rule| rule.matches == [Match::In("shop0".to_owned())])
    );
    for network in ["172.18.0.0/16", "172.19.0.0/16", "172.20.0.0/16"] {
        let network = Match::Dest(network.parse().unwrap());
        assert!(
            passes(&rules, Chain::IstioContainer, &network),
            "{network:?} is Docker's"
        );
    }
    let to_agent = Verdict::Redirect(ports::DNS);
    let is_asked = |rule: &super::rules::Rule| rule.chain == Chain::IstioContainer && rule.verdict == to_agent;
    assert_eq!(rules.rules.iter().filter(|rule| is_asked(rule)).count(), 2);
}
