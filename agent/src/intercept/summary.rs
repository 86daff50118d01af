//! The rules in words, for `plan`: what they capture, what they leave alone, and what no rule of ours ever touches.

use std::fmt::Display;

use anyhow::Result;

use super::capture::{METADATA_SERVERS, SSH};
use super::membership::{bridges, excluded_ports, left_alone};
use super::surroundings::Surroundings;
use super::{Directions, Interception, Options, Ruleset, change_for};
use crate::facts::Membership;
use crate::host::change::HostChange;
use crate::part::{Change, Effect, Plan};

/// The work of a start; `note` is what the rules need that is not theirs to do.
///
/// # Errors
/// Like those of a change of the rules.
pub(super) fn plan(membership: &Membership, options: &Options, note: Option<String>) -> Result<Plan> {
    let change = change_for(membership, options, Directions::BOTH)?;
    let surroundings = Surroundings::of(&options.host)?;
    let guarded = untouched(membership, &surroundings)
        .into_iter()
        .fold(Plan::default(), Plan::leaving);
    let Some(diff) = change.plan(&options.host)? else {
        return Ok(guarded);
    };
    let diff = with_note(diff, note);
    let mut plan = Plan::of(Change::new(HostChange::name(&change), diff));
    plan.effects = effects(membership, options, &surroundings);
    let Interception { carrier, ruleset, .. } = &change;
    plan = plan.effect(
        Effect::Captures,
        format!("by {} rules of {}", Ruleset::len(ruleset), carrier.name()),
    );
    if let Some(rules) = carrier.other().installed(&options.host)? {
        plan = plan.effect(Effect::Removes, format!("{}, {rules} rules", carrier.other().owned()));
    }
    plan.extend(guarded);
    Ok(plan)
}

/// The difference, followed by a note of what its rules need.
fn with_note(diff: String, note: Option<String>) -> String {
    match note {
        Some(note) => format!("{}\n# {note}\n", diff.trim_end()),
        None => diff,
    }
}

fn effects(membership: &Membership, options: &Options, surroundings: &Surroundings) -> Vec<(Effect, String)> {
    let outbound = &membership.outbound;
    let left = left_alone(
        membership.inbound_ports.as_deref(),
        excluded_ports(membership),
        surroundings,
    );
    let inbound = match membership.inbound_ports.as_deref() {
        None => {
            let ssh = [SSH].into_iter().filter(|port| !left.contains(port));
            let left: Vec<u16> = left.iter().copied().chain(ssh).collect();
            Some(format!("calls to this VM on every port but {}", list(&left)))
        }
        Some([]) => None,
        Some(ports) => Some(format!("calls to this VM on port {}", list(ports))),
    };
    let calls = match outbound.networks.as_deref() {
        None => Some("calls of this VM to every address".to_owned()),
        Some([]) => None,
        Some(networks) => Some(format!("calls of this VM to {}", list(networks))),
    };
    let bridges = bridges(options, surroundings, &membership.exclude_interfaces).captured;
    let containers = (!bridges.is_empty()).then(|| format!("calls of containers on {}", list(&bridges)));
    let is_asked = membership.dns_capture && !surroundings.dns_servers.is_empty();
    let dns = is_asked.then(|| format!("DNS queries to {}", list(&surroundings.dns_servers)));
    let captured = [inbound, calls, containers, dns].into_iter().flatten();

    let named = |words: &str, list: String| (!list.is_empty()).then(|| format!("{words} {list}"));
    let family = match membership.families() {
        (true, true) => None,
        (true, false) => Some("calls of this VM over IPv6, which the mesh has not".to_owned()),
        (false, _) => Some("calls of this VM over IPv4, which the mesh has not".to_owned()),
    };
    let passed = [
        named("calls of this VM to", list(&outbound.exclude_networks)),
        named("calls of this VM to port", list(&outbound.exclude_ports)),
        family,
        named(
            "calls of containers on networks",
            list(&options.config.exclude_container_networks),
        ),
        named("calls to the application of users", list(&options.config.direct_uids)),
    ];
    let captured = captured.map(|words| (Effect::Captures, words));
    captured
        .chain(passed.into_iter().flatten().map(|words| (Effect::LeavesAlone, words)))
        .collect()
}

/// The things that an operator fears for, and that no rule touches.
fn untouched(membership: &Membership, surroundings: &Surroundings) -> Vec<String> {
    let captured = membership.inbound_ports.as_deref().unwrap_or_default();
    let known = surroundings.ssh_ports.iter().filter(|port| **port != SSH);
    let ssh: Vec<u16> = [SSH].iter().chain(known).copied().collect();
    let ssh: Vec<u16> = ssh.into_iter().filter(|port| !captured.contains(port)).collect();
    let ssh = (!ssh.is_empty()).then(|| format!("ssh to this VM, port {}", list(&ssh)));
    ssh.into_iter()
        .chain([
            format!("the clouds' metadata and wire servers, {}", list(&METADATA_SERVERS)),
            "calls of this agent and of Envoy themselves: to istiod, its CA, the API server, name servers".to_owned(),
            "connections that are open now, but those to captured ports".to_owned(),
            "rules, routes and sysctls of other programs".to_owned(),
        ])
        .collect()
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::InterceptConfig;
    use crate::control_plane::fixtures::membership;
    use crate::host::Host;

    fn options() -> Options {
        Options {
            config: InterceptConfig {
                direct_uids: vec![1000],
                ..InterceptConfig::default()
            },
            ..Options::by_default(Host::system())
        }
    }

    fn surroundings() -> Surroundings {
        Surroundings {
            dns_servers: vec!["10.0.0.1".parse().unwrap()],
            ephemeral_ports: 32768..=60999,
            ssh_ports: vec![2222],
            container_dns_servers: Vec::new(),
            bridges: Vec::new(),
        }
    }

    #[test]
    fn note_follows_the_rules_that_need_it() {
        assert_eq!(with_note("+rule\n".to_owned(), None), "+rule\n");
        let noted = with_note("+rule\n".to_owned(), Some("open 15006: `ufw …`".to_owned()));
        assert_eq!(noted, "+rule\n# open 15006: `ufw …`\n");
    }

    #[test]
    fn effects_name_what_is_captured_and_what_is_not() {
        let mut member = Membership {
            inbound_ports: Some(vec![3550, 8080]),
            dns_capture: true,
            ..membership()
        };
        member.outbound.exclude_networks = vec!["10.1.0.0/16".parse().unwrap()];
        let told = |member: &Membership| {
            let effects = effects(member, &options(), &surroundings());
            let lines: Vec<String> = effects
                .into_iter()
                .map(|(effect, words)| format!("{effect:?}: {words}"))
                .collect();
            lines.join("\n")
        };
        assert_eq!(
            told(&member),
            "Captures: calls to this VM on port 3550, 8080\n\
             Captures: calls of this VM to every address\n\
             Captures: DNS queries to 10.0.0.1\n\
             LeavesAlone: calls of this VM to 10.1.0.0/16\n\
             LeavesAlone: calls of this VM over IPv6, which the mesh has not\n\
             LeavesAlone: calls to the application of users 1000"
        );
        member.inbound_ports = None;
        assert!(
            told(&member).contains("on every port but 15020, 15021, 15090, 2222, 22\n"),
            "{}",
            told(&member)
        );
    }

    #[test]
    fn ssh_is_never_touched_unless_its_port_is_captured_by_name() {
        let first = |ports| {
            let member = Membership {
                inbound_ports: ports,
                ..membership()
            };
            untouched(&member, &surroundings()).remove(0)
        };
        assert_eq!(first(None), "ssh to this VM, port 22, 2222");
        assert_eq!(first(Some(vec![22])), "ssh to this VM, port 2222");
        assert!(first(Some(vec![22, 2222])).starts_with("the clouds'"));
    }
}
