//! Traffic that is to be captured, and the rules that follow from it. Pure.
//!
//! The fields bear the names of istio-iptables' settings, and `Style::Istio` gives its rules one by one; the
//! reference cases test that. `Style::Agent` is what the product uses.

mod closed;
mod neighbors;
mod output;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::rules::{Chain, Family, Match, Rule, Ruleset, Table, Verdict};
use crate::config::{PortMapping, ports};

/// Origin of the rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Style {
    /// istio-iptables', appended to what is there.
    Istio,
    /// Istio's, and what they lack on a VM:
    /// - Jumps come first in PREROUTING and OUTPUT. Docker's DNAT for a published port sits in the same chains:
    ///   whichever was added first would win, and a VM on which dockerd starts before the agent would serve
    ///   past Envoy.
    /// - Only the first packet of a connection is redirected. Without it, a connection older than conntrack
    ///   (an ssh session, when ours are the first NAT rules) is torn out of the hands that hold it.
    /// - ssh is never captured, nor is what this machine only forwards taken for inbound.
    /// - Forwarded DNS is tracked in the zone its answers are, or containers would get none.
    /// - What the redirect has not taken is dropped (`closed`).
    /// - Users of this VM reach the application through Envoy, as everybody else.
    Agent,
}

/// `*`, or a list; an empty one captures nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Select<T> {
    All,
    Only(Vec<T>),
}

/// The agent's containers on a bridge of this machine, with published ports.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bridge {
    /// The bridge, `docker0`.
    pub interface: String,
    /// Ports that the containers publish.
    pub ports: Vec<PortMapping>,
    /// True when containers may ask the metadata server, and so have the VM's cloud identity.
    pub cloud_identity: bool,
}

impl Bridge {
    /// Ports in the containers, each once.
    fn container_ports(&self) -> Vec<u16> {
        let ports: BTreeSet<u16> = self.ports.iter().map(|port| port.container).collect();
        ports.into_iter().collect()
    }
}

/// The bridges to containers.
#[derive(Clone, Debug, Default)]
pub(super) struct Bridges {
    /// The application's.
    pub(super) application: Option<Bridge>,
    /// Networks on the application's; empty while there is no such bridge.
    pub(super) application_networks: Vec<IpNet>,
    /// Addresses of this VM on the application's.
    pub(super) application_gateways: Vec<IpAddr>,
    /// Names of those whose containers' calls are captured.
    pub(super) captured: Vec<String>,
    /// Networks on all of them, captured or not.
    pub(super) networks: Vec<IpNet>,
}

#[derive(Clone, Debug)]
pub(super) struct Capture {
    pub(super) style: Style,
    pub(super) proxy_port: u16,
    pub(super) inbound_capture_port: u16,
    pub(super) proxy_uids: Vec<u32>,
    pub(super) proxy_gids: Vec<String>,
    pub(super) inbound_ports_include: Select<u16>,
    pub(super) inbound_ports_exclude: Vec<u16>,
    /// True when anything that leaves is captured; Istio always does.
    pub(super) outbound: bool,
    pub(super) outbound_ip_ranges_include: Select<IpNet>,
    pub(super) outbound_ip_ranges_exclude: Vec<IpNet>,
    pub(super) outbound_ports_include: Vec<u16>,
    pub(super) outbound_ports_exclude: Vec<u16>,
    pub(super) owner_groups_include: Select<String>,
    pub(super) owner_groups_exclude: Vec<String>,
    pub(super) exclude_interfaces: Vec<String>,
    /// Interfaces whose traffic is another machine's outbound.
    pub(super) reroute_virtual_interfaces: Vec<String>,
    /// Empty: DNS is left alone.
    pub(super) dns_servers: Vec<IpAddr>,
    /// Servers whose queries of containers are captured, where DNS is.
    pub(super) container_dns_servers: Vec<IpAddr>,
    pub(super) host_ipv4_loopback: IpNet,
    pub(super) drop_invalid: bool,
    pub(super) bridges: Bridges,
    /// Users beside root and Envoy whose calls to the application stay as they are.
    pub(super) direct_uids: Vec<u32>,
    /// Range from which the kernel chooses the ports of the VM's own connections.
    pub(super) ephemeral_ports: RangeInclusive<u16>,
}

impl Default for Capture {
    /// istio-iptables' defaults.
    fn default() -> Self {
        Self {
            style: Style::Agent,
            proxy_port: ports::OUTBOUND,
            inbound_capture_port: ports::INBOUND,
            proxy_uids: vec![ports::PROXY_UID],
            proxy_gids: vec![ports::PROXY_GID.to_string()],
            inbound_ports_include: Select::Only(Vec::new()),
            inbound_ports_exclude: Vec::new(),
            outbound: true,
            outbound_ip_ranges_include: Select::Only(Vec::new()),
            outbound_ip_ranges_exclude: Vec::new(),
            outbound_ports_include: Vec::new(),
            outbound_ports_exclude: Vec::new(),
            owner_groups_include: Select::All,
            owner_groups_exclude: Vec::new(),
            exclude_interfaces: Vec::new(),
            reroute_virtual_interfaces: Vec::new(),
            dns_servers: Vec::new(),
            container_dns_servers: Vec::new(),
            host_ipv4_loopback: IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
            drop_invalid: false,
            bridges: Bridges::default(),
            direct_uids: Vec::new(),
            ephemeral_ports: EPHEMERAL_PORTS,
        }
    }
}

/// The kernel's default (Documentation/networking/ip-sysctl: ip_local_port_range).
pub(super) const EPHEMERAL_PORTS: RangeInclusive<u16> = 32768..=60999;

/// The clouds' metadata and wire servers: identity, ssh keys and DNS of the VM come from them, so they are reached
/// whatever the mesh does. DNS to them is captured all the same.
pub(super) const METADATA_SERVERS: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    // Google's for VMs with IPv6 alone.
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    // Azure's wire server, which heals and extends the VM.
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    // Amazon's for IPv6.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // Alibaba's.
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

const DNS: u16 = 53;

/// sshd's; an operator locked out can't undo anything.
pub(super) const SSH: u16 = 22;

#[cfg(test)]
impl Capture {
    /// Of an application in a container on Docker's default bridge.
    pub(super) fn of_a_container() -> Self {
        Self {
            inbound_ports_include: Select::Only(vec![3550]),
            bridges: Bridges {
                application: Some(Bridge {
                    interface: "docker0".to_owned(),
                    ports: vec!["3550:8080".parse().unwrap()],
                    cloud_identity: false,
                }),
                application_networks: vec!["172.17.0.0/16".parse().unwrap()],
                ..Bridges::default()
            },
            ..Self::default()
        }
    }
}

impl Capture {
    /// The rules, in istio-iptables' order.
    pub(super) fn rules(&self) -> Ruleset {
        let mut rules = Ruleset::default();
        if self.style == Style::Agent && !self.captures_inbound() && !self.outbound {
            return rules;
        }
        self.interfaces(&mut rules);
        self.targets(&mut rules);
        if self.captures_inbound() {
            self.inbound(&mut rules);
        }
        if self.outbound || self.style == Style::Agent {
            rules.push(self.enter(Table::Nat, Chain::Output, vec![], Chain::IstioOutput));
            self.output(&mut rules);
        }
        if self.outbound {
            self.containers(&mut rules);
            self.virtual_interfaces(&mut rules);
        }
        self.closed(&mut rules);
        rules
    }

    fn captures_inbound(&self) -> bool {
        self.inbound_ports_include != Select::Only(Vec::new())
    }

    fn interfaces(&self, rules: &mut Ruleset) {
        use Chain::{IstioDrop, IstioInbound, IstioOutput, Output, Prerouting};
        // The agent's jumps come first in the kernel's chains: before them nothing of ours is asked.
        let (arrives, leaves) = match self.style {
            Style::Istio => (Prerouting, Output),
            Style::Agent => (IstioInbound, IstioOutput),
        };
        for nic in &self.exclude_interfaces {
            rules.push(nat(arrives, vec![Match::In(nic.clone())], Verdict::Return));
            rules.push(nat(leaves, vec![Match::Out(nic.clone())], Verdict::Return));
        }
        for nic in &self.reroute_virtual_interfaces {
            let rule = nat(Prerouting, vec![Match::In(nic.clone())], Verdict::Return);
            rules.push(Rule { first: true, ..rule });
        }
        if self.drop_invalid {
            rules.push(self.enter(Table::Mangle, Prerouting, vec![Match::Invalid], IstioDrop));
            rules.push(rule(Table::Mangle, IstioDrop, vec![], Verdict::Drop));
        }
    }

    fn targets(&self, rules: &mut Ruleset) {
        use Chain::{IstioInRedirect, IstioInbound, IstioRedirect};
        let hbone = vec![Match::Tcp, Match::DestPort(ports::HBONE)];
        rules.push(nat(IstioInbound, hbone, Verdict::Return));
        let (outbound, inbound) = (self.proxy_port, self.inbound_capture_port);
        rules.push(nat(IstioRedirect, vec![Match::Tcp], Verdict::Redirect(outbound)));
        rules.push(nat(IstioInRedirect, vec![Match::Tcp], Verdict::Redirect(inbound)));
    }

    fn inbound(&self, rules: &mut Ruleset) {
        use Chain::{IstioInRedirect, IstioInbound, Prerouting};
        rules.push(self.enter(Table::Nat, Prerouting, vec![Match::Tcp], IstioInbound));
        for bridge in &self.bridges.captured {
            rules.push(nat(IstioInbound, vec![Match::In(bridge.clone())], Verdict::Return));
        }
        if self.style == Style::Agent {
            for matches in [
                vec![Match::Tcp, Match::NotSyn],
                vec![Match::NotToSelf],
                vec![Match::Tcp, Match::DestPort(SSH)],
            ] {
                rules.push(nat(IstioInbound, matches, Verdict::Return));
            }
        }
        let mut to = |port: Option<u16>, verdict| {
            let matches = [Match::Tcp].into_iter().chain(port.map(Match::DestPort));
            rules.push(nat(IstioInbound, matches.collect(), verdict));
        };
        match &self.inbound_ports_include {
            Select::All => {
                for port in &self.inbound_ports_exclude {
                    to(Some(*port), Verdict::Return);
                }
                // Envoy would call itself.
                for port in self.redirect_ports() {
                    if self.style == Style::Agent {
                        to(Some(port), Verdict::Return);
                    }
                }
                to(None, Verdict::Jump(IstioInRedirect));
            }
            Select::Only(include) => {
                for port in include {
                    to(Some(*port), Verdict::Jump(IstioInRedirect));
                }
            }
        }
    }

    /// Packets that containers send out of the machine are its outbound, whoever they call; never inbound.
    fn containers(&self, rules: &mut Ruleset) {
        use Chain::{IstioContainer, IstioRedirect, Prerouting};
        if self.bridges.captured.is_empty() {
            return;
        }
        for bridge in &self.bridges.captured {
            let arriving = vec![Match::In(bridge.clone())];
            rules.push(self.enter(Table::Nat, Prerouting, arriving, IstioContainer));
        }
        // To the address that this VM has on the bridge.
        for (server, query) in self.container_queries() {
            let to_agent = Verdict::Redirect(ports::DNS);
            rules.push(for_address(&server, nat(IstioContainer, query, to_agent)));
        }
        rules.push(nat(IstioContainer, vec![Match::Tcp, Match::NotSyn], Verdict::Return));
        self.to_this_vm(rules);
        self.to_neighbors(rules, Table::Nat);
        self.excluded_ports(rules, IstioContainer);
        self.destinations(rules, Table::Nat, IstioContainer, Verdict::Jump(IstioRedirect));
        if self.outbound_ip_ranges_include == Select::All {
            rules.push(nat(IstioContainer, vec![], Verdict::Jump(IstioRedirect)));
        }
    }

    /// Calls of containers to the VM itself, but to the application, stay as they are: Envoy's call in its place would
    /// come from this VM, which its firewall and its services believe more than a container. So do users' own calls
    /// over lo.
    fn to_this_vm(&self, rules: &mut Ruleset) {
        let mut left_alone = |ports: Vec<Match>| {
            let to_self = [Match::Tcp, Match::ToSelf].into_iter().chain(ports).collect();
            rules.push(nat(Chain::IstioContainer, to_self, Verdict::Return));
        };
        match &self.inbound_ports_include {
            Select::All => {
                for ports in closed::chunks(&self.ports_left_alone()) {
                    left_alone(vec![Match::DestPorts(ports)]);
                }
            }
            Select::Only(_) => left_alone(
                closed::chunks(&self.application_ports())
                    .map(Match::NotDestPorts)
                    .collect(),
            ),
        }
    }

    fn virtual_interfaces(&self, rules: &mut Ruleset) {
        use Chain::{IstioRedirect, Prerouting};
        if self.outbound_ip_ranges_include != Select::All {
            return;
        }
        for nic in &self.reroute_virtual_interfaces {
            let rule = nat(Prerouting, vec![Match::In(nic.clone())], Verdict::Jump(IstioRedirect));
            rules.push(Rule { first: true, ..rule });
        }
    }

    /// The queries of containers that the agent answers, each with its server.
    fn container_queries(&self) -> impl Iterator<Item = (IpAddr, Vec<Match>)> {
        let servers = self
            .container_dns_servers
            .iter()
            .filter(|_| !self.dns_servers.is_empty());
        servers.flat_map(|server| {
            [Match::Tcp, Match::Udp].map(|transport| {
                let query = vec![transport, Match::DestPort(DNS), Match::Dest((*server).into())];
                (*server, query)
            })
        })
    }

    /// From one of netfilter's chains into one of ours.
    fn enter(&self, table: Table, from: Chain, matches: Vec<Match>, to: Chain) -> Rule {
        Rule {
            first: self.style == Style::Agent,
            ..rule(table, from, matches, Verdict::Jump(to))
        }
    }
}

/// Source of what Envoy sends to the application.
fn passthrough() -> [IpAddr; 2] {
    [
        ports::INBOUND_PASSTHROUGH.into(),
        Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into(),
    ]
}

fn nat(chain: Chain, matches: Vec<Match>, verdict: Verdict) -> Rule {
    rule(Table::Nat, chain, matches, verdict)
}

fn rule(table: Table, chain: Chain, matches: Vec<Match>, verdict: Verdict) -> Rule {
    Rule {
        table,
        chain,
        family: None,
        first: false,
        matches,
        verdict,
    }
}

fn for_address(address: &IpAddr, rule: Rule) -> Rule {
    Rule {
        family: Some(Family::of(*address)),
        ..rule
    }
}
