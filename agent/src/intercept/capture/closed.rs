//! Packets that are dropped where no redirect has taken them: the guarantee behind the redirection.
//!
//! A NAT rule is asked once a connection, for the packet that conntrack saw first. Whoever has conntrack see another
//! packet first (a stray ACK, a connection of before the rules, one that was made while they were flushed), or takes a
//! route that the redirect is not on (the container's own address), is never asked for. These rules are asked for
//! every packet, after NAT: what the redirect has taken is addressed to Envoy by then, so what is still addressed to
//! the application came past Envoy. They are in the mangle table, before and beside any ACCEPT of another firewall's.
//!
//! A decision that opens something rests on what a packet is, never on what it is not: a packet of which conntrack
//! knows nothing matches none of `Reply` and `Dnat`, and is dropped.

use std::collections::BTreeSet;

use super::{Capture, DNS, METADATA_SERVERS, SSH, Select, Style, for_address, rule};
use crate::config::ports;
use crate::intercept::rules::{Chain, Family, LO, Match, PORTS_PER_RULE, Rule, Ruleset, Table, Verdict};

/// Envoy's listeners beside those that packets are redirected to.
const ENVOY_PORTS: [u16; 2] = [ports::READINESS, ports::ENVOY_METRICS];
const ROOT: u32 = 0;

impl Capture {
    pub(super) fn closed(&self, rules: &mut Ruleset) {
        if self.style == Style::Istio {
            return;
        }
        self.listeners(rules);
        self.identity(rules);
        if self.captures_inbound() {
            self.arriving(rules);
            self.local(rules);
            self.loose(rules);
        }
        self.forwarded(rules);
        self.bridged(rules);
        self.containers_leave(rules);
    }

    /// Nobody but Envoy is told what was redirected to it: another program that has its port while Envoy is away gets
    /// no connection, because its answer to the first packet does not leave. What the kernel answers with a SYN cookie is of no
    /// socket, and has to leave: it is how a listener outlives a flood. Another program's would, too, but the ports are held.
    fn listeners(&self, rules: &mut Ruleset) {
        let answers = vec![Match::Tcp, Match::SynAck];
        rules.push(self.enter(Table::Mangle, Chain::Output, answers, Chain::IstioListeners));
        let mut only = |transport: Match, ports: Vec<u16>, owners: &[u32]| {
            let answers = |owner: Option<u32>| {
                let matches = [transport.clone(), Match::SourcePorts(ports.clone())];
                matches.into_iter().chain(owner.map(Match::Uid)).collect()
            };
            for owner in owners {
                return_in(rules, Chain::IstioListeners, answers(Some(*owner)));
            }
            let mut of_others = answers(None);
            of_others.extend((transport == Match::Tcp).then_some(Match::Owned));
            drop_in(rules, Chain::IstioListeners, of_others);
        };
        let mut of_envoy = self.redirect_ports().to_vec();
        of_envoy.extend(ENVOY_PORTS);
        let mut envoy = self.proxy_uids.clone();
        envoy.push(ROOT);
        only(Match::Tcp, of_envoy, &envoy);
        only(Match::Tcp, vec![ports::STATUS], &[ROOT]);
        if !self.dns_servers.is_empty() {
            only(Match::Tcp, vec![ports::DNS], &[ROOT]);
            only(Match::Udp, vec![ports::DNS], &[ROOT]);
            let answers = vec![Match::Udp, Match::SourcePort(ports::DNS)];
            rules.push(self.enter(Table::Mangle, Chain::Output, answers, Chain::IstioListeners));
        }
    }

    /// Envoy has no use for the VM's cloud identity, and speaks for whoever gets it to. Its own look-ups of names are another
    /// matter: the metadata server is also the resolver of Google's VMs.
    fn identity(&self, rules: &mut Ruleset) {
        // Whose a packet is costs more to find out than where it goes.
        for server in METADATA_SERVERS {
            let asked = vec![Match::Dest(server.into()), Match::Tcp, Match::NotDestPorts(vec![DNS])];
            rules.push(for_address(
                &server,
                self.enter(Table::Mangle, Chain::Output, asked, Chain::IstioIdentity),
            ));
        }
        for uid in &self.proxy_uids {
            drop_in(rules, Chain::IstioIdentity, vec![Match::Uid(*uid)]);
        }
    }

    /// Rules for packets that arrive at the VM from outside.
    fn arriving(&self, rules: &mut Ruleset) {
        use Chain::{Forward, Input, IstioDrop, IstioInbound};
        rules.push(self.enter(Table::Mangle, Input, vec![Match::NotIn(LO.to_owned())], IstioInbound));
        // From this VM's own address and from outside: IPv6 forwards it, and what answers it would be an answer to this VM.
        // Not where all packets arrive, for a hook costs each of them more than a rule.
        for hook in [Input, Forward] {
            let forged = vec![Match::NotIn(LO.to_owned()), Match::FromSelf];
            rules.push(Rule {
                family: Some(Family::V6),
                ..self.enter(Table::Mangle, hook, forged, IstioDrop)
            });
        }
        drop_in(rules, IstioDrop, vec![]);
        for nic in &self.exclude_interfaces {
            return_in(rules, IstioInbound, vec![Match::In(nic.clone())]);
        }
        let shared: Vec<u16> = self
            .redirect_ports()
            .into_iter()
            .filter(|port| self.is_ephemeral(*port))
            .collect();
        if !shared.is_empty() {
            return_in(rules, IstioInbound, tcp(Some(shared), [Match::NotSyn, Match::Reply]));
        }
        self.only_by_redirect(rules, IstioInbound, self.redirect_ports().to_vec());
        if !self.dns_servers.is_empty() {
            self.only_by_redirect(rules, IstioInbound, vec![ports::DNS]);
            let query = || vec![Match::Udp, Match::DestPort(ports::DNS)];
            return_in(rules, IstioInbound, query().into_iter().chain([Match::Dnat]).collect());
            drop_in(rules, IstioInbound, query());
        }
        let all = self.inbound_ports_include == Select::All;
        if all {
            self.excluded(rules, IstioInbound, Match::DestPorts);
        }
        // An answer is never the first packet of a connection, whatever conntrack takes it for.
        for ports in self.captured_ports() {
            drop_in(rules, IstioInbound, tcp(ports, [Match::Syn]));
        }
        for ports in self.shared_ports() {
            return_in(rules, IstioInbound, tcp(ports, [Match::Reply]));
        }
        for ports in self.captured_ports() {
            drop_in(rules, IstioInbound, tcp(ports, []));
        }
        // The same application by another transport. Of all UDP ports nobody knows which are the application's.
        for ports in chunks(&self.application_ports()) {
            self.only_answers_by_udp(rules, IstioInbound, ports);
        }
    }

    /// Rules for packets of the VM's users to the application, when the redirect has not taken them, or to Envoy.
    fn local(&self, rules: &mut Ruleset) {
        use Chain::{IstioLocal, Output, Postrouting};
        let mut enter = |from, way: &str, transport: Match, ports: &[u16]| {
            for ports in chunks(ports) {
                let to = vec![Match::Out(way.to_owned()), transport.clone(), Match::DestPorts(ports)];
                rules.push(self.enter(Table::Mangle, from, to, IstioLocal));
            }
        };
        let mut ports = self.redirect_ports().to_vec();
        ports.extend(self.application_ports());
        ports.sort_unstable();
        ports.dedup();
        // Over loopback after NAT, by which the redirect is known; into the bridge before it leaves, beside what is
        // forwarded there, which is nobody's of this VM.
        enter(Postrouting, LO, Match::Udp, &self.application_ports());
        enter(Postrouting, LO, Match::Tcp, &ports);
        if let Some(bridge) = &self.bridges.application {
            for transport in [Match::Udp, Match::Tcp] {
                enter(Output, &bridge.interface, transport, &bridge.container_ports());
            }
        }
        for uid in self.unredirected_uids() {
            return_in(rules, IstioLocal, vec![Match::Uid(uid)]);
        }
        for gid in &self.proxy_gids {
            return_in(rules, IstioLocal, vec![Match::Gid(gid.clone())]);
        }
        self.only_by_redirect(rules, IstioLocal, vec![self.proxy_port, self.inbound_capture_port]);
        drop_in(rules, IstioLocal, tcp(Some(vec![ports::CONTAINER]), [Match::Syn]));
        for ports in chunks(&self.application_ports()) {
            // Of a connection of before the rules, too; what the kernel says after a program's end is of nobody.
            for which in [Match::Syn, Match::Owned] {
                let call = vec![
                    Match::Out(LO.to_owned()),
                    Match::Tcp,
                    Match::DestPorts(ports.clone()),
                    which,
                ];
                drop_in(rules, IstioLocal, call);
            }
            self.only_answers_by_udp(rules, IstioLocal, ports);
        }
        let Some(bridge) = &self.bridges.application else {
            return;
        };
        for ports in chunks(&bridge.container_ports()) {
            for packet in [
                vec![Match::Tcp, Match::Syn],
                vec![Match::Tcp, Match::Owned],
                vec![Match::Udp, Match::Owned],
            ] {
                let mut matches = vec![Match::NotOut(LO.to_owned())];
                matches.extend(packet);
                matches.push(Match::DestPorts(ports.clone()));
                drop_in(rules, IstioLocal, matches);
            }
        }
    }

    /// A connection of before the rules on which the application spoke first would be this VM's own to conntrack, and
    /// what arrives on it an answer. So none is taken up in its middle on a port where answers may arrive.
    fn loose(&self, rules: &mut Ruleset) {
        use Chain::{IstioLoose, Output};
        let middle = vec![Match::NotOut(LO.to_owned()), Match::Tcp, Match::NotSyn, Match::New];
        let shared = self.shared_ports();
        if shared.is_empty() {
            return;
        }
        rules.push(self.enter(Table::Mangle, Output, middle, IstioLoose));
        if self.inbound_ports_include == Select::All {
            self.excluded(rules, IstioLoose, Match::SourcePorts);
            // Those that the kernel chose for this VM's own connections, which are to go on.
            drop_in(
                rules,
                IstioLoose,
                vec![Match::Tcp, Match::NotSourcePorts(self.ephemeral_ports.clone())],
            );
        }
        for ports in shared.into_iter().flatten() {
            drop_in(rules, IstioLoose, vec![Match::Tcp, Match::SourcePorts(ports)]);
        }
    }

    /// Rules for packets that are forwarded into the bridge: nothing to the ports of the container, for Envoy is on
    /// this VM. Another container may have the same port, published as another one.
    fn forwarded(&self, rules: &mut Ruleset) {
        let Some(bridge) = self.bridges.application.as_ref().filter(|_| self.captures_inbound()) else {
            return;
        };
        let into = vec![Match::Out(bridge.interface.clone())];
        rules.push(self.enter(Table::Mangle, Chain::Forward, into, Chain::IstioForward));
        for ports in chunks(&bridge.container_ports()) {
            for transport in [Match::Tcp, Match::Udp] {
                let to = || vec![transport.clone(), Match::DestPorts(ports.clone())];
                if ports.iter().any(|port| self.ephemeral_ports.contains(port)) {
                    let mut answer = to();
                    answer.extend((transport == Match::Tcp).then_some(Match::NotSyn));
                    answer.push(Match::Reply);
                    return_in(rules, Chain::IstioForward, answer);
                }
                let mut published = to();
                published.push(Match::Dnat);
                published.extend(bridge.ports.iter().map(|port| Match::NotOriginalDestPort(port.host)));
                return_in(rules, Chain::IstioForward, published);
                drop_in(rules, Chain::IstioForward, to());
            }
        }
    }

    /// Rules for packets of containers that the redirect has not taken; the VM's cloud identity is not the
    /// application's.
    fn containers_leave(&self, rules: &mut Ruleset) {
        use Chain::{Forward, IstioContainer};
        let application = self
            .bridges
            .application
            .as_ref()
            .filter(|bridge| !bridge.cloud_identity);
        let closed = application.map(|bridge| &bridge.interface);
        let captured = self.bridges.captured.iter().filter(|_| self.outbound);
        let sources: BTreeSet<&String> = captured.clone().chain(closed).collect();
        for bridge in sources {
            let from = vec![Match::In(bridge.clone())];
            rules.push(self.enter(Table::Mangle, Forward, from, IstioContainer));
        }
        if let Some(bridge) = closed {
            for server in METADATA_SERVERS {
                // It is also the resolver of Google's VMs.
                let port = [Match::Tcp, Match::NotDestPorts(vec![DNS])];
                let asked = [Match::In(bridge.clone()), Match::Dest(server.into())]
                    .into_iter()
                    .chain(port);
                let asked = rule(Table::Mangle, IstioContainer, asked.collect(), Verdict::Drop);
                rules.push(for_address(&server, asked));
            }
            if self.outbound && !self.bridges.captured.contains(bridge) {
                return_in(rules, IstioContainer, vec![Match::In(bridge.clone())]);
            }
        }
        if captured.count() > 0 {
            self.only_by_envoy(rules);
        }
    }

    /// Connections of containers that the redirect was to take.
    fn only_by_envoy(&self, rules: &mut Ruleset) {
        use Chain::IstioContainer;
        return_in(rules, IstioContainer, vec![Match::Tcp, Match::NotSyn]);
        for (server, query) in self
            .container_queries()
            .filter(|(_, query)| query.contains(&Match::Tcp))
        {
            let passed = rule(Table::Mangle, IstioContainer, query, Verdict::Return);
            rules.push(for_address(&server, passed));
        }
        for ports in chunks(&self.outbound_ports_exclude) {
            return_in(rules, IstioContainer, vec![Match::Tcp, Match::DestPorts(ports)]);
        }
        self.to_neighbors(rules, Table::Mangle);
        self.destinations(rules, Table::Mangle, IstioContainer, Verdict::Drop);
        if self.outbound_ip_ranges_include == Select::All {
            drop_in(rules, IstioContainer, vec![Match::Tcp]);
        }
    }

    /// Envoy's own ports are for what was redirected there: by its original destination Envoy knows what is meant.
    fn only_by_redirect(&self, rules: &mut Ruleset, chain: Chain, ports: Vec<u16>) {
        return_in(rules, chain, tcp(Some(ports.clone()), [Match::Dnat]));
        drop_in(rules, chain, tcp(Some(ports), []));
    }

    /// The VM's own queries may come from a port of the application's, and their answers go there.
    fn only_answers_by_udp(&self, rules: &mut Ruleset, chain: Chain, ports: Vec<u16>) {
        let to = vec![Match::Udp, Match::DestPorts(ports)];
        return_in(rules, chain, to.iter().cloned().chain([Match::Reply]).collect());
        drop_in(rules, chain, to);
    }

    fn is_ephemeral(&self, port: u16) -> bool {
        self.ephemeral_ports.contains(&port)
    }

    /// Envoy's listeners that packets are redirected to.
    pub(super) fn redirect_ports(&self) -> [u16; 3] {
        [self.proxy_port, self.inbound_capture_port, ports::CONTAINER]
    }

    /// Ports that are never captured where all others are.
    fn excluded(&self, rules: &mut Ruleset, chain: Chain, side: fn(Vec<u16>) -> Match) {
        for ports in chunks(&self.ports_left_alone()) {
            return_in(rules, chain, vec![Match::Tcp, side(ports)]);
        }
    }

    /// Ports that are never captured, whatever else is.
    pub(super) fn ports_left_alone(&self) -> Vec<u16> {
        let mut ports = self.inbound_ports_exclude.clone();
        ports.push(SSH);
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Captured ports, as many as fit a rule; `None` stands for all.
    fn captured_ports(&self) -> Vec<Option<Vec<u16>>> {
        match &self.inbound_ports_include {
            Select::All => vec![None],
            Select::Only(_) => chunks(&self.application_ports()).map(Some).collect(),
        }
    }

    /// Captured ports that connections of this VM's own may also come from.
    fn shared_ports(&self) -> Vec<Option<Vec<u16>>> {
        if self.inbound_ports_include == Select::All {
            return vec![None];
        }
        let mut ports = self.application_ports();
        ports.retain(|port| self.ephemeral_ports.contains(port));
        chunks(&ports).map(Some).collect()
    }

    /// Ports that are known to be the application's.
    pub(super) fn application_ports(&self) -> Vec<u16> {
        let mut ports = match &self.inbound_ports_include {
            Select::Only(ports) => ports.clone(),
            Select::All => Vec::new(),
        };
        ports.extend(
            self.bridges
                .application
                .iter()
                .flat_map(|bridge| bridge.ports.iter().map(|port| port.host)),
        );
        ports.retain(|port| *port != SSH && !self.inbound_ports_exclude.contains(port));
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    /// Users whose calls to the application stay as they are: Envoy, first, because most packets are its and to ask for an
    /// owner costs more than all else; root, who could do anything anyway (docker-proxy is its); whom the operator names.
    pub(super) fn unredirected_uids(&self) -> impl Iterator<Item = u32> {
        let envoy = self.proxy_uids.iter().copied();
        envoy.chain([ROOT]).chain(self.direct_uids.iter().copied())
    }
}

fn tcp<const N: usize>(ports: Option<Vec<u16>>, more: [Match; N]) -> Vec<Match> {
    let ports = ports.map(Match::DestPorts);
    [Match::Tcp].into_iter().chain(ports).chain(more).collect()
}

pub(super) fn chunks(ports: &[u16]) -> impl Iterator<Item = Vec<u16>> {
    ports.chunks(PORTS_PER_RULE).map(<[u16]>::to_vec)
}

fn drop_in(rules: &mut Ruleset, chain: Chain, matches: Vec<Match>) {
    rules.push(rule(Table::Mangle, chain, matches, Verdict::Drop));
}

fn return_in(rules: &mut Ruleset, chain: Chain, matches: Vec<Match>) {
    rules.push(rule(Table::Mangle, chain, matches, Verdict::Return));
}
