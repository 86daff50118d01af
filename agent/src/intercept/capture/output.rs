//! The rules for what this machine sends: ISTIO_OUTPUT and its DNS.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use super::{Capture, DNS, Select, Style, for_address, nat, passthrough, rule};
use crate::config::ports;
use crate::intercept::rules::{Chain, LO, Match, PORTS_PER_RULE, Rule, Ruleset, Table, Verdict};

/// Conntrack zones, as Istio numbers them. A query of an application and the agent's own for it may have the
/// same source port, and would be one connection to conntrack, redirected or not.
const UPSTREAM: u16 = 1;
const CAPTURED: u16 = 2;

impl Capture {
    pub(super) fn output(&self, rules: &mut Ruleset) {
        self.published(rules);
        self.local_callers(rules);
        if !self.outbound {
            return;
        }
        self.excluded_ports(rules, Chain::IstioOutput);
        for address in passthrough() {
            let from_envoy = vec![lo(), Match::Source(address.into())];
            rules.push(for_address(
                &address,
                nat(Chain::IstioOutput, from_envoy, Verdict::Return),
            ));
        }
        for uid in &self.proxy_uids {
            self.owner(rules, Match::Uid(*uid), Match::NotUid(*uid), self.not_by_user());
        }
        for gid in &self.proxy_gids {
            self.owner(
                rules,
                Match::Gid(gid.clone()),
                Match::NotGid(gid.clone()),
                self.not_by_group(),
            );
        }
        self.owner_groups(rules);
        if !self.dns_servers.is_empty() {
            self.dns(rules);
        }
        for loopback in self.loopbacks() {
            let rule = nat(Chain::IstioOutput, vec![Match::Dest(loopback)], Verdict::Return);
            rules.push(for_address(&loopback.addr(), rule));
        }
        self.destinations(
            rules,
            Table::Nat,
            Chain::IstioOutput,
            Verdict::Jump(Chain::IstioRedirect),
        );
        if self.outbound_ip_ranges_include == Select::All {
            out(rules, vec![], Verdict::Jump(Chain::IstioRedirect));
        }
    }

    /// A published port of a container on a bridge. Envoy calls the application at the VM's own address from
    /// 127.0.0.6; Docker's DNAT in OUTPUT would send that out of the bridge, where the kernel drops it for its
    /// loopback source. So before Docker's turn it is sent to a listener of Envoy's own, which calls the container
    /// at its address: docker-proxy, which could accept it too, ends with dockerd and need not be there at all.
    /// What is sent into the container is not to come back to Envoy.
    fn published(&self, rules: &mut Ruleset) {
        if self.style == Style::Agent && self.outbound {
            out(rules, vec![Match::Tcp, Match::NotSyn], Verdict::Return);
        }
        let Some(bridge) = &self.bridges.application else {
            return;
        };
        for port in &bridge.ports {
            for address in passthrough() {
                // Anybody can call from that address.
                for owner in self.proxies() {
                    let call = vec![
                        lo(),
                        Match::Source(address.into()),
                        Match::Tcp,
                        Match::DestPort(port.host),
                        owner,
                    ];
                    rules.push(for_address(
                        &address,
                        nat(Chain::IstioOutput, call, Verdict::Redirect(ports::CONTAINER)),
                    ));
                }
            }
            for owner in self.direct_callers() {
                let mut call = vec![lo(), Match::Tcp, Match::DestPort(port.host)];
                call.extend(owner);
                out(rules, call, Verdict::Redirect(ports::CONTAINER));
            }
            let hop = vec![
                Match::Out(bridge.interface.clone()),
                Match::Tcp,
                Match::DestPort(port.container),
            ];
            out(rules, hop, Verdict::Return);
        }
    }

    /// Who calls a container as it is: root and whom the operator names, by their numbers; probes, by their group. By the
    /// same way as Envoy, for Docker need publish nothing.
    fn direct_callers(&self) -> Vec<Vec<Match>> {
        if self.style == Style::Istio || !self.captures_inbound() {
            return Vec::new();
        }
        let uids = self.unredirected_uids().filter(|uid| !self.proxy_uids.contains(uid));
        let by_group = self.proxy_gids.iter().map(|gid| {
            let not_envoy = self.proxy_uids.iter().copied().map(Match::NotUid);
            not_envoy.chain([Match::Gid(gid.clone())]).collect()
        });
        uids.map(|uid| vec![Match::Uid(uid)]).chain(by_group).collect()
    }

    /// A user of this VM calls the application as everybody else does: the mesh's policy holds for it, too. Root and
    /// Envoy call it as it is; so do probes, by their group.
    fn local_callers(&self, rules: &mut Ruleset) {
        if self.style == Style::Istio || !self.captures_inbound() {
            return;
        }
        for ports in self.application_ports().chunks(PORTS_PER_RULE) {
            let mut call = vec![lo(), Match::Tcp, Match::DestPorts(ports.to_vec())];
            call.extend(self.unredirected_uids().map(Match::NotUid));
            call.extend(self.proxy_gids.iter().cloned().map(Match::NotGid));
            out(rules, call, Verdict::Jump(Chain::IstioInRedirect));
        }
    }

    /// The proxy calling its own application by the VM's address is a call like any other, over Envoy's inbound
    /// listener; all else that it sends, and all that others send over loopback, goes its way.
    fn owner(&self, rules: &mut Ruleset, is: Match, is_not: Match, except: Vec<u16>) {
        for loopback in self.loopbacks() {
            let call = vec![
                lo(),
                Match::NotDest(loopback),
                Match::Tcp,
                Match::NotDestPorts(except.clone()),
                is.clone(),
            ];
            let rule = nat(Chain::IstioOutput, call, Verdict::Jump(Chain::IstioInRedirect));
            rules.push(for_address(&loopback.addr(), rule));
        }
        if !self.includes_loopback() {
            let mut others = vec![lo()];
            if !self.dns_servers.is_empty() {
                others.extend([Match::Tcp, Match::NotDestPorts(vec![DNS])]);
            }
            others.push(is_not);
            out(rules, others, Verdict::Return);
        }
        out(rules, vec![is], Verdict::Return);
    }

    /// Envoy by its user, the agent and its probes by their group.
    fn proxies(&self) -> impl Iterator<Item = Match> {
        let uids = self.proxy_uids.iter().copied().map(Match::Uid);
        uids.chain(self.proxy_gids.iter().cloned().map(Match::Gid))
    }

    fn not_by_user(&self) -> Vec<u16> {
        if self.dns_servers.is_empty() {
            vec![ports::HBONE]
        } else {
            vec![DNS, ports::HBONE]
        }
    }

    /// Istio excepts DNS by user only: its agent has Envoy's user. Ours has the group alone, and its query over
    /// TCP to a resolver on loopback (127.0.0.53) would end at Envoy.
    fn not_by_group(&self) -> Vec<u16> {
        match self.style {
            Style::Agent => self.not_by_user(),
            Style::Istio => vec![ports::HBONE],
        }
    }

    fn owner_groups(&self, rules: &mut Ruleset) {
        for gid in &self.owner_groups_exclude {
            out(rules, vec![Match::Gid(gid.clone())], Verdict::Return);
        }
        if let Select::Only(gids) = &self.owner_groups_include {
            let none = gids.iter().cloned().map(Match::NotGid).collect();
            out(rules, none, Verdict::Return);
        }
    }

    fn dns(&self, rules: &mut Ruleset) {
        use Chain::{IstioInbound, IstioOutputDns, Output, Prerouting};
        out(rules, vec![], Verdict::Jump(IstioOutputDns));
        for transport in [Match::Tcp, Match::Udp] {
            for server in &self.dns_servers {
                let query = vec![transport.clone(), Match::DestPort(DNS), Match::Dest((*server).into())];
                let rule = nat(IstioOutputDns, query, Verdict::Redirect(ports::DNS));
                rules.push(for_address(server, rule));
            }
        }
        rules.push(self.enter(Table::Raw, Output, self.of_zones(), IstioOutputDns));
        let owners = self.proxy_uids.iter().copied().map(Match::Uid);
        for owner in owners.chain(self.proxy_gids.iter().cloned().map(Match::Gid)) {
            let asks = vec![Match::Udp, Match::DestPort(DNS), owner.clone()];
            rules.push(rule(Table::Raw, IstioOutputDns, asks, Verdict::Zone(UPSTREAM)));
            let answers = vec![Match::Udp, Match::SourcePort(ports::DNS), owner];
            rules.push(rule(Table::Raw, IstioOutputDns, answers, Verdict::Zone(CAPTURED)));
        }
        rules.push(self.enter(Table::Raw, Prerouting, self.of_zones(), IstioInbound));
        self.zones_of_containers(rules);
        for server in &self.dns_servers {
            self.zones_of(rules, server);
        }
    }

    /// The agent's answers to containers are in the zone of all that it answers, and so their queries have to be.
    fn zones_of_containers(&self, rules: &mut Ruleset) {
        for bridge in &self.bridges.captured {
            for (server, query) in self
                .container_queries()
                .filter(|(_, query)| query.contains(&Match::Udp))
            {
                let matches = [Match::In(bridge.clone())].into_iter().chain(query).collect();
                let in_zone = rule(Table::Raw, Chain::IstioInbound, matches, Verdict::Zone(CAPTURED));
                rules.push(for_address(&server, in_zone));
            }
        }
    }

    /// Packets that may need a zone. Istio has all of them looked at.
    fn of_zones(&self) -> Vec<Match> {
        match self.style {
            Style::Agent => vec![Match::Udp],
            Style::Istio => vec![],
        }
    }

    fn zones_of(&self, rules: &mut Ruleset, server: &IpAddr) {
        use Chain::{IstioInbound, IstioOutputDns};
        let to_server = || vec![Match::Udp, Match::DestPort(DNS), Match::Dest((*server).into())];
        let mut zone = |chain, matches, zone| {
            rules.push(for_address(
                server,
                rule(Table::Raw, chain, matches, Verdict::Zone(zone)),
            ));
        };
        zone(IstioOutputDns, to_server(), CAPTURED);
        let from_server = vec![Match::Udp, Match::SourcePort(DNS), Match::Source((*server).into())];
        zone(IstioInbound, from_server, UPSTREAM);
        if self.style == Style::Agent {
            zone(IstioInbound, to_server(), UPSTREAM);
        }
    }

    pub(super) fn excluded_ports(&self, rules: &mut Ruleset, chain: Chain) {
        for port in &self.outbound_ports_exclude {
            for transport in [Match::Tcp, Match::Udp] {
                rules.push(nat(chain, vec![transport, Match::DestPort(*port)], Verdict::Return));
            }
        }
    }

    /// The ranges and ports that are left alone, and those that are not, where it isn't all.
    pub(super) fn destinations(&self, rules: &mut Ruleset, table: Table, chain: Chain, captured: Verdict) {
        for range in &self.outbound_ip_ranges_exclude {
            rules.push(for_address(
                &range.addr(),
                rule(
                    table,
                    chain,
                    Match::destination(*range).into_iter().collect(),
                    Verdict::Return,
                ),
            ));
        }
        for port in &self.outbound_ports_include {
            rules.push(rule(table, chain, vec![Match::Tcp, Match::DestPort(*port)], captured));
        }
        let Select::Only(ranges) = &self.outbound_ip_ranges_include else {
            return;
        };
        if chain == Chain::IstioOutput {
            self.virtual_interfaces_to(rules, ranges);
        }
        for range in ranges {
            rules.push(for_address(
                &range.addr(),
                rule(table, chain, vec![Match::Dest(*range)], captured),
            ));
        }
    }

    fn virtual_interfaces_to(&self, rules: &mut Ruleset, ranges: &[IpNet]) {
        for range in ranges {
            for nic in &self.reroute_virtual_interfaces {
                let matches = vec![Match::In(nic.clone()), Match::Dest(*range)];
                let to_envoy = Verdict::Jump(Chain::IstioRedirect);
                let rule = for_address(&range.addr(), nat(Chain::Prerouting, matches, to_envoy));
                rules.push(Rule { first: true, ..rule });
            }
        }
    }

    /// An application that reaches others through loopback addresses must be captured there.
    fn includes_loopback(&self) -> bool {
        match &self.outbound_ip_ranges_include {
            Select::All => false,
            Select::Only(ranges) => ranges.iter().any(|range| range.addr().is_loopback()),
        }
    }

    fn loopbacks(&self) -> [IpNet; 2] {
        [self.host_ipv4_loopback, IpAddr::V6(Ipv6Addr::LOCALHOST).into()]
    }
}

fn out(rules: &mut Ruleset, matches: Vec<Match>, verdict: Verdict) {
    rules.push(nat(Chain::IstioOutput, matches, verdict));
}

fn lo() -> Match {
    Match::Out(LO.to_owned())
}
