//! The ports that other programs' firewalls have to leave open for the mesh: judged once by `check` and `plan`, and again and
//! again beside the rules of a running agent.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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
pub(super) fn closed(site: &Site, membership: &Membership, asked: Asked) -> Option<(String, String)> {
    if !is_wanted(site) {
        return None;
    }
    let options = Options::new(site.host.clone(), &site.config);
    let from_containers = Surroundings::of(&site.host).is_ok_and(|surroundings| {
        let bridges = bridges(&options, &surroundings, &membership.exclude_interfaces);
        !bridges.captured.is_empty()
    });
    let mut coming = match asked {
        Asked::OfCalls => Vec::new(),
        Asked::Every => vec![ports::READINESS, ports::ENVOY_METRICS],
    };
    coming.extend(captures_calls(membership).then_some(ports::INBOUND));
    coming.extend(from_containers.then_some(ports::OUTBOUND));
    coming.sort_unstable();
    let mut leaving = vec![ports::OUTBOUND];
    leaving.extend(membership.dns_capture.then_some(ports::DNS));
    let mut inside = vec![ports::OUTBOUND, ports::STATUS];
    inside.extend(membership.inbound_ports.iter().flatten());
    let hooks = [
        (Hook::Input, &coming, "comes to", COMES),
        (Hook::Output, &leaving, "its own programs send to", LEAVES),
        (Hook::LoopbackInput, &inside, "comes on lo to", INSIDE),
        (Hook::LoopbackOutput, &inside, "leaves on lo for", INSIDE),
    ];
    let rules = Listing::of(&site.host);
    let problems = hooks.map(|(hook, ports, what, why)| Some((rules.closed(hook, ports)?, what, why)));
    let (mut texts, mut fixes) = (Vec::new(), Vec::new());
    for (Closed { ports, remedies }, what, why) in problems.into_iter().flatten() {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        texts.push(format!(
            "this VM's firewall seems to drop what {what} {}: {why}",
            ports.join(", ")
        ));
        fixes.extend(remedies);
    }
    (!texts.is_empty()).then(|| (texts.join("; "), fixes.join(" && ")))
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
            .blocking(move |_| Ok(closed(&asked, &facts, Asked::OfCalls)))
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

    use super::*;
    use crate::config::Config;
    use crate::control_plane::fixtures::membership;
    use crate::host::{CommandError, Host, Invocation, Run};
    use crate::part::Units;

    /// A host with a firewall of nftables that drops what comes in, as long as it is shut.
    #[derive(Debug)]
    struct Firewall(Arc<AtomicBool>);

    impl Run for Firewall {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            if call.to_string() != "nft -j list ruleset" {
                return Err(CommandError::NotFound {
                    call: Box::new(call.clone()),
                });
            }
            let policy = if self.0.load(Ordering::Relaxed) {
                "drop"
            } else {
                "accept"
            };
            let chain = serde_json::json!({
                "family": "inet", "table": "filter", "name": "input", "type": "filter", "hook": "input", "policy": policy
            });
            Ok(serde_json::json!({ "nftables": [{ "chain": chain }] }).to_string())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn firewall_that_shuts_is_told_with_its_command_until_it_opens() {
        let shut = Arc::new(AtomicBool::new(false));
        let site = Site {
            host: Host::new(Path::new("/nonexistent"), Firewall(Arc::clone(&shut))),
            config: Config::default(),
            units: Units::default(),
        };
        let facts = watch::Sender::new(Arc::new(membership()));
        let publish = watch::Sender::<Option<String>>::default();
        let mut told = publish.subscribe();
        let look = async {
            shut.store(true, Ordering::Relaxed);
            let problem = told.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            let command = ": `nft insert rule inet filter input tcp dport { 15006 } accept && ";
            assert!(problem.contains(command), "{problem}");
            shut.store(false, Ordering::Relaxed);
            told.wait_for(Option::is_none).await.unwrap();
        };
        tokio::select! {
            never = follow(site, facts.subscribe(), publish.clone()) => match never {},
            () = look => {}
        }
    }
}
