//! The join source as a part.

use std::net::IpAddr;
use std::time::SystemTime;

use super::addresses::Machine;
use super::card::Card;
use super::{Join, refresh};
use crate::config::mesh_address;
use crate::facts::Membership;
use crate::host::network;
use crate::part::{
    Changes, Channels, CheckContext, Code, Context, Finding, Part, Problems, Question, SHORT, Section, Site, State,
    Subject, Task, changes_of,
};

const SECTION: State<Option<Card>> = State {
    key: "vm",
    title: "VM",
    live: |channels| Some(Card::from(&*channels.membership())),
    // Its bundle may name an address that only the network knows.
    offline: |_| None,
    lines: |card, _| card.as_ref().map(Card::lines).unwrap_or_default(),
};

/// Follows the join source; without one it runs nothing.
#[derive(Debug)]
pub struct JoinPart(pub Option<Join>);

impl Part for JoinPart {
    fn name(&self) -> &'static str {
        "join"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let join = self.0.clone()?;
        let publish = context.channels.membership.clone();
        let problem = context.channels.join_problem.clone();
        let host = context.channels.host.subscribe();
        Some(Task::new(SHORT, |scope| {
            refresh::run(scope, join, host, publish, problem)
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.join_problem)]
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        let finding = |site: &Site, membership: &Membership| address(site, membership);
        let unheeded = |_: &Site, membership: &Membership| unheeded(membership);
        vec![
            Question::look_of_member(ADDRESS, context, finding),
            Question::look_of_member(UNHEEDED, context, unheeded),
        ]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let problem = context.channels.join_problem.borrow().clone();
        Problems::default().amiss(
            Code::JoinSource,
            problem.map(|problem| format!("the join source is followed no more, what it gave last serves: {problem}")),
        )
    }
}

const ADDRESS: Subject = Subject::new("IVA203", "address");
const UNHEEDED: Subject = Subject::new("IVA204", "unheeded");

/// A warning for each part of the bundle that has no effect on this VM.
fn unheeded(membership: &Membership) -> Vec<Finding> {
    if membership.unheeded.is_empty() {
        return vec![UNHEEDED.ok("all that the bundle says is heeded")];
    }
    let told = membership.unheeded.iter();
    told.map(|problem| UNHEEDED.warning(problem, "remove it, or do as it says"))
        .collect()
}

fn address(site: &Site, membership: &Membership) -> Vec<Finding> {
    let machine = Machine::observe();
    let key = match site.config.network.address {
        Some(_) => "network.address",
        None => "ISTIO_SVC_IP of the bundle",
    };
    let address = membership.instance_ips.first();
    let judged = address.map(|address| judged(key, *address, &machine));
    let unnamed = match &site.config.network.name {
        Some(_) => None,
        None => unnamed(&machine),
    };
    let routed = address.filter(|_| site.config.network.address.is_none());
    let tunnelled = routed.and_then(|address| tunnelled(*address, &machine, network::is_single));
    judged.into_iter().chain(tunnelled).chain(unnamed).collect()
}

/// The warning about a host name that any machine has, or that is an address, of which the first part is left.
fn unnamed(machine: &Machine) -> Option<Finding> {
    let is_anybodys = machine.short_name() == "localhost" || machine.name.parse::<IpAddr>().is_ok();
    is_anybodys.then(|| {
        ADDRESS.warning(
            format!(
                "the host name is {}, and so the mesh knows this VM as {}, which others may be called too",
                machine.name,
                machine.short_name()
            ),
            "write a name of its own into network.name, or `hostnamectl set-hostname NAME`",
        )
    })
}

/// The finding about an address that peers are to call and no interface has; a public one may be mapped by the cloud.
fn judged(key: &str, address: IpAddr, machine: &Machine) -> Finding {
    if machine.interfaces.iter().any(|(_, ip)| *ip == address) {
        return ADDRESS.ok(format!("peers call this VM at {address}"));
    }
    let problem = format!("{key} is {address}, which is on no interface of this VM that is up");
    match mesh_address::is_public(address) {
        true => ADDRESS.warning(
            format!("{problem}: peers reach it only where the cloud maps it to an address that is"),
            "where the cloud doesn't, write one that `ip address` lists into network.address",
        ),
        false => ADDRESS.failed(
            format!("{problem}, so peers would call another machine"),
            "write one that `ip address` lists into network.address, or remove it",
        ),
    }
}

/// The warning about an address of a VPN, by which the route to istiod leads: `is_single` tells of one without a network.
fn tunnelled(address: IpAddr, machine: &Machine, is_single: impl Fn(IpAddr) -> bool) -> Option<Finding> {
    let interface = |ip: IpAddr| {
        machine
            .interfaces
            .iter()
            .find(|(_, it)| *it == ip)
            .map(|(name, _)| name)
    };
    let default = network::ELSEWHERE
        .iter()
        .find_map(|peer| interface((machine.source_towards)(peer).ok()?))?;
    let tunnel = interface(address).filter(|it| *it != default && is_single(address))?;
    Some(ADDRESS.warning(
        format!(
            "peers are told to call this VM at {address} of {tunnel}, a VPN's as it seems, for the route to istiod leads there; \
             the default route's is {default}"
        ),
        format!("write the address of {default} that peers call into network.address; or {address}, where they are in the VPN"),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::part::Level;

    fn machine(name: &str) -> Machine {
        Machine {
            name: name.to_owned(),
            interfaces: vec![("eth0".to_owned(), IpAddr::from([10, 0, 0, 3]))],
            source_towards: |_| Err(std::io::ErrorKind::NetworkUnreachable.into()),
            now: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn host_name_that_is_no_name_of_a_vm_is_told() {
        for (name, is_told) in [
            ("localhost.localdomain", true),
            ("10.0.0.3", true),
            ("vm.example", false),
        ] {
            assert_eq!(unnamed(&machine(name)).is_some(), is_told, "{name}");
        }
    }

    #[test]
    fn address_of_a_vpn_that_leads_to_istiod_is_told() {
        let (own, vpn) = (IpAddr::from([10, 0, 0, 3]), IpAddr::from([100, 64, 0, 9]));
        let machine = Machine {
            interfaces: vec![("eth0".to_owned(), own), ("tun0".to_owned(), vpn)],
            source_towards: |_| Ok(IpAddr::from([10, 0, 0, 3])),
            ..machine("vm")
        };
        let found = tunnelled(vpn, &machine, |_| true).unwrap();
        assert!(
            found.level == Level::Warning && found.fix.unwrap().starts_with("write the address of eth0 that"),
            "{}",
            found.detail
        );
        // On Google an address of eth0 has no network either; and another network is no VPN.
        assert_eq!(tunnelled(own, &machine, |_| true), None);
        assert_eq!(tunnelled(vpn, &machine, |_| false), None);
    }

    #[test]
    fn address_that_no_interface_has_is_told() {
        let machine = machine("vm");
        let level = |ip: &str| judged("network.address", ip.parse().unwrap(), &machine).level;
        assert_eq!(level("10.0.0.3"), Level::Ok);
        assert_eq!(level("10.0.0.4"), Level::Failed);
        assert_eq!(level("34.1.2.3"), Level::Warning);
    }
}
