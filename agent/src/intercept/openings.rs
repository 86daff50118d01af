//! The ports that other programs' firewalls have to leave open for the mesh: judged once by `check` and `plan`, and again and
//! again beside the rules of a running agent.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use ipnet::IpNet;
use tokio::sync::watch;
use tokio::time::sleep;

use super::firewall::{Closed, Hook, Listing, Target, Way};
use super::membership::{bridges, envoy_ports};
use super::surroundings::Surroundings;
use super::{Options, is_wanted};
use crate::config::{Config, ports};
use crate::facts::{HostBridge, Membership};
use crate::host::Watched;
use crate::part::Site;

/// The reason for a port that a firewall has to let in.
const COMES: &str = "calls of the mesh come in by Envoy's one port for them (15006, unless the mesh has another), whatever port they \
                     are for, readiness probes by 15021, metrics are at 15090";
/// The reason for a port that a firewall has to let in from containers.
const BRIDGED: &str = "calls of containers come from their bridge to Envoy by 15001, and their DNS to the agent by 15053 (UDP and \
                       TCP)";
/// The reason for a port that a firewall has to let out.
const LEAVES: &str = "their calls are redirected to Envoy (15001) and their DNS to the agent (15053, UDP and TCP) on \
                      loopback, which is not the interface lo in the eyes of rules for what leaves";
/// The reason for Envoy to be let out.
const ENVOYS: &str = "it calls as its own user (1337), whoever the programs' are, and to whatever ports pods have";
/// The reason for the agent to be let out.
const AGENTS: &str = "it calls istiod and its CA as root, and not through Envoy";
/// The reason for lo to be open.
const INSIDE: &str = "on lo programs' calls come to Envoy (15001), Envoy's to the application and its readiness to the agent \
                      (15020)";

/// Longest that a program may take that lists rules, while the agent serves.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks, however often the rules change: a listing of many costs something.
const PAUSE: Duration = Duration::from_secs(10);
/// Between two looks where nothing is told: of iptables-legacy no change is.
const LOOK: Duration = Duration::from_secs(60);

/// Ports that are asked about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Asked {
    /// Ports without which calls fail.
    OfCalls,
    /// Ports of readiness and of metrics too, which nobody may want to ask from outside.
    Every,
}

/// True where calls to the application are redirected.
pub(super) fn captures_calls(membership: &Membership) -> bool {
    membership.inbound_ports.as_ref().is_none_or(|ports| !ports.is_empty())
}

/// The ports that another program's firewall must let pass and does not, and the commands that open them. Blocks.
///
/// # Errors
/// When this VM can't be looked at.
pub(super) fn closed(site: &Site, membership: &Membership, asked: Asked) -> Result<Option<(String, String)>> {
    if !is_wanted(site) {
        return Ok(None);
    }
    let options = Options::new(site.host.clone(), &site.config);
    let surroundings = Surroundings::of(&site.host)?;
    let bridges = bridges(&options, &surroundings, &membership.exclude_interfaces);
    let rules = Listing::of(&site.host, membership.families())?;
    let called = called_by_the_agent(&site.config, membership);
    let (mut texts, mut fixes) = (Vec::new(), Vec::new());
    for (way, targets, why) in asked_for(membership, &bridges.captured, called, asked) {
        let Some(closed) = rules.closed(way, &targets)? else {
            continue;
        };
        let is_open_enough = match (way.hook, way.by) {
            (Hook::Input, None) => is_application_as_closed(&rules, membership, &closed)?,
            (Hook::Input, Some(bridge)) => is_open_to(&surroundings.bridges, bridge, &closed),
            _ => false,
        };
        if is_open_enough {
            continue;
        }
        let ports: Vec<String> = closed.ports.iter().map(u16::to_string).collect();
        texts.push(format!(
            "this VM's firewall seems to drop what {} {}{}: {why}",
            what(way),
            ports.join(", "),
            but_from(&closed)
        ));
        for remedy in closed.remedies {
            if !fixes.contains(&remedy) {
                fixes.push(remedy);
            }
        }
    }
    Ok((!texts.is_empty()).then(|| (texts.join("; "), fixes.join(" && "))))
}

/// The ways to what the mesh needs on this VM, with the reason of each.
fn asked_for<'a>(
    membership: &Membership,
    bridges: &'a [String],
    called: Vec<Target>,
    asked: Asked,
) -> Vec<(Way<'a>, Vec<Target>, &'static str)> {
    let (outbound, inbound) = envoy_ports(membership);
    let to_envoy = membership.outbound.is_any().then(|| Target::redirected(outbound));
    let dns = membership.dns_capture.then(|| Target::redirected_dns(ports::DNS));
    let outgoing: Vec<Target> = to_envoy.into_iter().chain(dns.into_iter().flatten()).collect();
    let mut coming = Vec::from_iter(captures_calls(membership).then(|| Target::redirected(inbound)));
    if asked == Asked::Every {
        coming.extend([ports::READINESS, ports::ENVOY_METRICS].map(Target::tcp));
    }
    let applications = membership.inbound_ports.iter().flatten().copied();
    let mut inside = vec![Target::tcp(ports::STATUS)];
    inside.extend(&outgoing);
    inside.extend(applications.map(Target::tcp));
    let mut ways = vec![(Way::of(Hook::Input), coming, COMES)];
    ways.extend(bridges.iter().map(|bridge| {
        let by = Some(bridge.as_str());
        let hook = Hook::Input;
        (Way { hook, by }, outgoing.clone(), BRIDGED)
    }));
    ways.push((Way::of(Hook::Output), outgoing, LEAVES));
    ways.push((Way::of(Hook::Envoy), Vec::from_iter(to_envoy), ENVOYS));
    ways.push((Way::of(Hook::Agent), called, AGENTS));
    ways.push((Way::of(Hook::LoopbackInput), inside.clone(), INSIDE));
    ways.push((Way::of(Hook::LoopbackOutput), inside, INSIDE));
    ways
}

/// The ports of the control planes and of the CA; none of one that is on this VM.
fn called_by_the_agent(config: &Config, membership: &Membership) -> Vec<Target> {
    let planes = match config.control_plane.addresses.as_slice() {
        [] => std::slice::from_ref(&membership.discovery_address),
        several => several,
    };
    let is_local = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let port = |address: &String| {
        let (host, port) = address.rsplit_once(':')?;
        (!is_local(host.trim_matches(['[', ']']))).then(|| port.parse().ok())?
    };
    let own_ca = Some(&membership.ca_address).filter(|address| **address != membership.discovery_address);
    let ports: BTreeSet<u16> = planes.iter().chain(own_ca).filter_map(port).collect();
    ports.into_iter().map(Target::tcp).collect()
}

fn what(way: Way<'_>) -> String {
    match (way.hook, way.by) {
        (Hook::Input, Some(bridge)) => format!("comes by {bridge} to"),
        (Hook::Input, None) => "comes to".to_owned(),
        (Hook::Output, _) => "its own programs send to".to_owned(),
        (Hook::Envoy, _) => "Envoy itself calls for the programs that are redirected to".to_owned(),
        (Hook::Agent, _) => "the agent itself calls at".to_owned(),
        (Hook::LoopbackInput, _) => "comes on lo to".to_owned(),
        (Hook::LoopbackOutput, _) => "leaves on lo for".to_owned(),
    }
}

fn but_from(closed: &Closed) -> String {
    let networks: Vec<&str> = closed.but_from.iter().map(String::as_str).collect();
    match networks.is_empty() {
        true => String::new(),
        false => format!(", but from {}", networks.join(", ")),
    }
}

/// True where the application is open to the same networks and to no other: whoever may call it gets to Envoy too.
fn is_application_as_closed(rules: &Listing, membership: &Membership, closed: &Closed) -> Result<bool> {
    let targets: Vec<Target> = membership
        .inbound_ports
        .iter()
        .flatten()
        .copied()
        .map(Target::tcp)
        .collect();
    if closed.but_from.is_empty() || targets.is_empty() {
        return Ok(false);
    }
    let application = rules.closed(Way::of(Hook::Input), &targets)?;
    Ok(application.is_some_and(|it| it.ports.len() == targets.len() && it.but_from == closed.but_from))
}

/// True where all of a bridge's addresses are in networks that the firewall is open to.
fn is_open_to(bridges: &[HostBridge], interface: &str, closed: &Closed) -> bool {
    let open: Vec<IpNet> = closed
        .but_from
        .iter()
        .filter_map(|network| network.parse().ok())
        .collect();
    let bridge = bridges.iter().find(|bridge| bridge.interface == interface);
    let networks = bridge.map(|bridge| bridge.networks.as_slice()).unwrap_or_default();
    let is_open = |network: &IpNet| open.iter().any(|open| open.contains(network));
    !networks.is_empty() && networks.iter().all(is_open)
}

/// Publishes what keeps calls from passing a firewall; looks when rules or the membership change, and now and then.
pub(super) async fn follow(
    site: Site,
    mut membership: watch::Receiver<Arc<Membership>>,
    publish: watch::Sender<Option<String>>,
) -> Infallible {
    let hurried = Site {
        host: site.host.clone().hurried(PATIENCE),
        ..site
    };
    let mut changes = hurried.host.kernel_changes(Watched::PacketFilter);
    loop {
        let facts = Arc::clone(&membership.borrow_and_update());
        let asked = hurried.clone();
        let closed = hurried
            .host
            .blocking(move |_| closed(&asked, &facts, Asked::OfCalls))
            .await;
        match closed {
            Ok(closed) => tell(closed.map(|(problem, fix)| format!("{problem}: `{fix}`")), &publish),
            Err(error) => tracing::debug!("other programs' firewalls can't be looked at: {error:#}"),
        }
        sleep(PAUSE).await;
        tokio::select! {
            Ok(()) = membership.changed() => {}
            () = changes.next() => {}
            () = sleep(LOOK) => {}
        }
    }
}

fn tell(problem: Option<String>, publish: &watch::Sender<Option<String>>) {
    publish.send_if_modified(|told| {
        let is_new = *told != problem;
        if is_new {
            match &problem {
                Some(problem) => tracing::warn!("{problem}"),
                None => tracing::info!("no firewall of this VM is seen any more to close a port that the mesh needs"),
            }
            *told = problem;
        }
        is_new
    });
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde_json::{Value, json};

    use super::*;
    use crate::control_plane::fixtures::membership;
    use crate::host::fixtures::{Answers, failed, not_installed};
    use crate::host::{CommandError, Host, Invocation};
    use crate::part::Units;

    fn site(nft: impl Fn(&Invocation) -> Result<String, CommandError> + Send + Sync + 'static) -> Site {
        let answers = Answers(move |call: &Invocation| match call.to_string().as_str() {
            "nft -j list ruleset" => nft(call),
            _ => not_installed(call),
        });
        Site {
            host: Host::new(Path::new("/nonexistent"), answers),
            config: Config::default(),
            units: Units::default(),
        }
    }

    /// A chain of this hook that lets pass what is on lo.
    fn chain(family: &str, hook: &str, policy: &str) -> Value {
        let chain = json!({
            "family": family, "table": "filter", "name": hook, "type": "filter", "hook": hook, "policy": policy
        });
        let key = if hook == "input" { "iifname" } else { "oifname" };
        let on_lo = json!({"match": {"op": "==", "left": {"meta": {"key": key}}, "right": "lo"}});
        let rule = json!({"family": family, "table": "filter", "chain": hook, "expr": [on_lo, {"accept": null}]});
        json!({ "nftables": [{ "chain": chain }, { "rule": rule }] })
    }

    fn dropping(family: &str, hook: &str) -> Site {
        let listing = chain(family, hook, "drop").to_string();
        site(move |_| Ok(listing.clone()))
    }

    #[tokio::test(start_paused = true)]
    async fn firewall_that_shuts_is_told_with_its_command_until_it_opens() {
        let shut = Arc::new(AtomicBool::new(false));
        let is_shut = Arc::clone(&shut);
        let site = site(move |_| {
            let policy = if is_shut.load(Ordering::Relaxed) {
                "drop"
            } else {
                "accept"
            };
            Ok(chain("inet", "input", policy).to_string())
        });
        let facts = watch::Sender::new(Arc::new(membership()));
        let publish = watch::Sender::<Option<String>>::default();
        let mut told = publish.subscribe();
        let look = async {
            shut.store(true, Ordering::Relaxed);
            let problem = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            let command = ": `nft insert rule inet filter input tcp dport { 15006 } accept`";
            assert!(problem.contains(command), "{problem}");
            shut.store(false, Ordering::Relaxed);
            told.wait_for(Option::is_none).await.unwrap();
        };
        tokio::select! {
            never = follow(site, facts.subscribe(), publish.clone()) => match never {},
            () = look => {}
        }
    }

    #[test]
    fn firewall_for_what_leaves_is_told_where_something_that_leaves_is_captured() {
        let site = dropping("inet", "output");
        let told = |membership: &Membership| closed(&site, membership, Asked::Every).unwrap().map(|(what, _)| what);
        let mut membership = Membership {
            dns_capture: false,
            ..membership()
        };
        assert!(told(&membership).is_some_and(|what| what.contains("send to 15001:")));
        membership.outbound.networks = Some(Vec::new());
        assert!(told(&membership).is_some_and(|what| !what.contains("send to") && what.contains("calls at 15012:")));
        membership.discovery_address = "[::1]:15012".to_owned();
        membership.ca_address.clone_from(&membership.discovery_address);
        assert_eq!(told(&membership), None);
        membership.dns_capture = true;
        assert!(told(&membership).is_some_and(|what| what.contains("send to 15053:")));
        membership.outbound.ports = vec![9092];
        assert!(told(&membership).is_some_and(|what| what.contains("send to 15001, 15053:")));
    }

    #[test]
    fn ports_of_envoy_that_the_mesh_has_moved_are_those_that_are_asked_of_a_firewall() {
        let mut membership = Membership {
            dns_capture: false,
            inbound_ports: Some(vec![3550]),
            ..membership()
        };
        let ports = [("proxyListenPort", 16001), ("proxyInboundListenPort", 16006)];
        membership
            .proxy_config
            .0
            .extend(ports.map(|(field, port)| (field.to_owned(), json!(port))));
        let told = |hook: &str| {
            closed(&dropping("inet", hook), &membership, Asked::OfCalls)
                .unwrap()
                .unwrap()
        };
        let (what, fix) = told("input");
        assert!(what.contains("comes to 16006:"), "{what}");
        assert!(fix.ends_with("tcp dport { 16006 } accept"), "{fix}");
        assert!(told("output").0.contains("send to 16001:"));
    }

    /// A chain that drops all but what these expressions accept.
    fn accepting(accepted: &[Value]) -> Site {
        let chain = json!({
            "family": "inet", "table": "f", "name": "input", "type": "filter", "hook": "input", "policy": "drop"
        });
        let on_lo =
            json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]);
        let rule = |expr: &Value| json!({"rule": {"family": "inet", "table": "f", "chain": "input", "expr": expr}});
        let rules = [&on_lo].into_iter().chain(accepted).map(rule);
        let objects: Vec<Value> = [json!({ "chain": chain })].into_iter().chain(rules).collect();
        let listing = json!({ "nftables": objects }).to_string();
        site(move |_| Ok(listing.clone()))
    }

    #[test]
    fn firewall_that_is_open_to_a_network_is_told_where_the_application_is_open_to_more() {
        let of = |key: &str, right: Value| {
            let left = json!({"payload": {"protocol": if key == "saddr" { "ip" } else { "tcp" }, "field": key}});
            json!([{"match": {"op": "==", "left": left, "right": right}}, {"accept": null}])
        };
        let membership = Membership {
            inbound_ports: Some(vec![3550]),
            ..membership()
        };
        let network = || of("saddr", json!({"prefix": {"addr": "10.0.0.0", "len": 8}}));
        let told = |accepted: &[Value]| closed(&accepting(accepted), &membership, Asked::OfCalls).unwrap();
        assert_eq!(told(&[network()]), None);
        let (what, _) = told(&[network(), of("dport", json!(3550))]).unwrap();
        assert!(what.contains("comes to 15006, but from 10.0.0.0/8:"), "{what}");
        let (what, _) = told(&[of("dport", json!(3550))]).unwrap();
        assert!(what.contains("comes to 15006:"), "{what}");
    }

    #[test]
    fn dns_is_asked_of_firewalls_for_udp_and_for_tcp() {
        let membership = membership();
        let dport = |protocol: &str| {
            let left = json!({"payload": {"protocol": protocol, "field": "dport"}});
            json!([{"match": {"op": "==", "left": left, "right": 15053}}, {"accept": null}])
        };
        let bridges = ["docker0".to_owned()];
        let asked = asked_for(&membership, &bridges, Vec::new(), Asked::OfCalls);
        let (way, targets, _) = asked.iter().find(|(way, ..)| way.by.is_some()).unwrap();
        let site = accepting(&[dport("udp")]);
        let rules = Listing::of(&site.host, (true, false)).unwrap();
        let closed = rules.closed(*way, targets).unwrap().unwrap();
        let fix = Vec::from_iter(closed.remedies).join("");
        assert_eq!(
            fix,
            "nft insert rule inet f input iifname docker0 tcp dport { 15001, 15053 } accept"
        );
        let site = accepting(&[dport("tcp")]);
        let rules = Listing::of(&site.host, (true, false)).unwrap();
        let closed = rules.closed(*way, targets).unwrap().unwrap();
        let fix = Vec::from_iter(closed.remedies).join("");
        assert!(fix.ends_with("iifname docker0 udp dport { 15053 } accept"), "{fix}");
    }

    #[test]
    fn firewall_of_a_family_is_told_where_there_are_calls_over_it() {
        let told = |family: &str, addresses: &[&str]| {
            let membership = Membership {
                instance_ips: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                ..membership()
            };
            let closed = closed(&dropping(family, "input"), &membership, Asked::OfCalls);
            closed.unwrap().is_some()
        };
        for (family, addresses, wanted) in [
            ("ip6", &["10.0.0.1"], false),
            ("ip6", &["fd00::1"], true),
            ("ip", &["fd00::1"], false),
            ("ip", &["10.0.0.1"], true),
            ("inet", &["fd00::1"], true),
            ("bridge", &["10.0.0.1"], false),
        ] {
            assert_eq!(told(family, addresses), wanted, "{family}, {addresses:?}");
        }
    }

    #[test]
    fn look_that_fails_is_no_firewall_that_is_open() {
        let look = |nft: fn(&Invocation) -> Result<String, CommandError>| {
            closed(&site(nft), &membership(), Asked::OfCalls).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(look(not_installed), Ok(None));
        assert_eq!(
            look(|call| failed(call, "Unable to initialize Netlink socket: Protocol not supported")),
            Ok(None)
        );
        let error = look(|call| failed(call, "Device or resource busy")).unwrap_err();
        assert!(
            error.contains("`nft -j list ruleset` failed") && error.contains("busy"),
            "{error}"
        );
        let error = look(|_| Ok("{".to_owned())).unwrap_err();
        assert!(error.contains("`nft -j list ruleset` printed no JSON"), "{error}");
    }
}
