//! The ports that other programs' firewalls have to leave open for the mesh: judged once by `check` and `plan`, and again and
//! again beside the rules of a running agent.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use super::firewall::{Closed, Hook, Listing};
use super::membership::bridges;
use super::surroundings::Surroundings;
use super::{Options, is_wanted};
use crate::config::ports;
use crate::facts::Membership;
use crate::host::Watched;
use crate::part::Site;

/// The reason for a port that a firewall has to let in.
const COMES: &str = "calls of the mesh come in by 15006 whatever port they are for, those of containers by 15001 and their \
                     DNS by 15053 (UDP and TCP) from their bridges, readiness probes by 15021, metrics are at 15090";
/// The reason for a port that a firewall has to let out.
const LEAVES: &str = "their calls are redirected to Envoy (15001) and their DNS to the agent (15053, UDP and TCP) on \
                      loopback, which is not the interface lo in the eyes of rules for what leaves";
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
    /// Those without which calls fail.
    OfCalls,
    /// Those of readiness and of metrics too, which nobody may want to ask from outside.
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
    let to_envoy = membership.outbound.is_any().then_some(ports::OUTBOUND);
    let mut coming = match asked {
        Asked::OfCalls => Vec::new(),
        Asked::Every => vec![ports::READINESS, ports::ENVOY_METRICS],
    };
    coming.extend(captures_calls(membership).then_some(ports::INBOUND));
    coming.extend(to_envoy.filter(|_| !bridges.captured.is_empty()));
    coming.sort_unstable();
    let mut leaving = Vec::from_iter(to_envoy);
    leaving.extend(membership.dns_capture.then_some(ports::DNS));
    let mut inside = vec![ports::STATUS];
    inside.extend(to_envoy);
    inside.extend(membership.inbound_ports.iter().flatten());
    let hooks = [
        (Hook::Input, &coming, "comes to", COMES),
        (Hook::Output, &leaving, "its own programs send to", LEAVES),
        (Hook::LoopbackInput, &inside, "comes on lo to", INSIDE),
        (Hook::LoopbackOutput, &inside, "leaves on lo for", INSIDE),
    ];
    let rules = Listing::of(&site.host, membership.families())?;
    let (mut texts, mut fixes) = (Vec::new(), Vec::new());
    for (hook, ports, what, why) in hooks {
        let Some(Closed { ports, remedies }) = rules.closed(hook, ports)? else {
            continue;
        };
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        texts.push(format!(
            "this VM's firewall seems to drop what {what} {}: {why}",
            ports.join(", ")
        ));
        fixes.extend(remedies);
    }
    Ok((!texts.is_empty()).then(|| (texts.join("; "), fixes.join(" && "))))
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
    use crate::config::Config;
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
        assert_eq!(told(&membership), None);
        membership.dns_capture = true;
        assert!(told(&membership).is_some_and(|what| what.contains("send to 15053:")));
        membership.outbound.ports = vec![9092];
        assert!(told(&membership).is_some_and(|what| what.contains("send to 15001, 15053:")));
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
