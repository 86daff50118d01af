//! Asks the control planes that are not in use how they are, so that it is known where to turn before it is needed.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use super::connect::{Connection, connect};
use super::selector::{ControlPlaneSelector, FAILOVER_TIMEOUT};
use crate::facts::{Credentials, Membership};
use crate::supervise::{Clock, Scope, sleep_jittered};

/// Time between two questions to the same one, a quarter more or less.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The facts that checks read.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// Roots that control planes are known by, and the address of the only one when none is configured.
    pub membership: watch::Receiver<Arc<Membership>>,
    /// Certificate that the VM shows, and further roots.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Clock that the certificate is judged by.
    pub clock: Clock,
}

/// Keeps `selector` informed until the drain. `configured` are the operator's addresses; without any the selector
/// follows the membership's.
pub async fn check(
    scope: Scope,
    selector: ControlPlaneSelector,
    configured: Vec<String>,
    inputs: Inputs,
) -> Result<()> {
    if configured.len() > 1 {
        for address in &configured {
            scope.spawn_loop(keep_asking(address.clone(), selector.clone(), inputs.clone()));
        }
    }
    scope.ready();
    let mut membership = inputs.membership;
    loop {
        if configured.is_empty() {
            selector.replace(vec![membership.borrow_and_update().discovery_address.clone()]);
        }
        tokio::select! {
            biased;
            () = scope.draining() => return Ok(()),
            Ok(()) = membership.changed() => {}
        }
    }
}

/// The current one is left to its users: a question more proves nothing that its streams don't.
async fn keep_asking(address: String, selector: ControlPlaneSelector, inputs: Inputs) -> Infallible {
    let mut idle = None;
    loop {
        if selector.current() == address {
            idle = None;
        } else {
            match ask(&address, idle.take(), &inputs).await {
                Ok(connection) => {
                    idle = Some(connection);
                    selector.mark_reachable(&address);
                }
                // It may have become the current one meanwhile.
                Err(error) if selector.current() != address => selector.mark_unreachable(&address, &error),
                Err(_) => {}
            }
        }
        sleep_jittered(CHECK_INTERVAL).await;
    }
}

/// Asks on the connection at hand, or on a new one; returns it when there was an answer.
async fn ask(address: &str, idle: Option<Connection>, inputs: &Inputs) -> Result<Connection> {
    let connection = match idle {
        Some(connection) => connection,
        None => {
            let (membership, credentials) = (inputs.membership.borrow().clone(), inputs.credentials.borrow().clone());
            let now = inputs.clock.now();
            connect(&membership, address, credentials.as_deref(), now, FAILOVER_TIMEOUT).await?
        }
    };
    connection.is_alive().await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tokio::net::TcpListener;

    use super::*;
    use crate::control_plane::fixtures::{Ca, ISTIOD, membership, server};
    use crate::facts::ControlPlaneHealth;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[tokio::test]
    async fn checks_ask_all_but_the_current_one() {
        let ((scope, _drain), ca, now) = (Scope::detached(), Ca::new("mesh"), SystemTime::now());
        let well = server(&scope, &ca, ISTIOD, now - DAY, now + DAY).await;
        // Takes connections and says nothing.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ports = [1, 2, well, silent.local_addr().unwrap().port()];
        let addresses = ports.map(|port| format!("{ISTIOD}:{port}")).to_vec();
        let member = Membership {
            roots_pem: ca.root_pem(),
            ..membership()
        };
        let inputs = Inputs {
            membership: watch::channel(Arc::new(member)).1,
            credentials: watch::channel(None).1,
            clock: Clock::System,
        };
        let selector = ControlPlaneSelector::new(addresses.clone(), DAY, Clock::System);
        let mut known = selector.subscribe();
        let task = check(scope.clone(), selector.clone(), addresses, inputs);
        scope.spawn(async move { task.await.unwrap() });
        let all_but_one = async {
            while selector
                .facts()
                .all
                .iter()
                .filter(|one| one.health != ControlPlaneHealth::Unknown)
                .count()
                < 3
            {
                known.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all_but_one)
            .await
            .unwrap();
        let all_health = selector.facts().all.into_iter().map(|one| one.health);
        let all_health: Vec<String> = all_health.map(|health| format!("{health:?}")).collect();
        assert_eq!(
            (all_health[0].as_str(), all_health[2].as_str()),
            ("Unknown", "Reachable")
        );
        assert!(all_health[1].contains("nothing listens there"), "{all_health:?}");
        assert!(all_health[3].contains("no answer within 3s"), "{all_health:?}");
    }

    #[tokio::test]
    async fn checks_follow_the_membership_without_configured_addresses() {
        let (scope, _drain) = Scope::detached();
        let (publish, receive) = watch::channel(Arc::new(membership()));
        let inputs = Inputs {
            membership: receive,
            credentials: watch::channel(None).1,
            clock: Clock::System,
        };
        let selector = ControlPlaneSelector::new(vec!["before:1".to_owned()], DAY, Clock::System);
        let mut known = selector.subscribe();
        let task = check(scope.clone(), selector.clone(), Vec::new(), inputs);
        scope.spawn(async move { task.await.unwrap() });
        known.changed().await.unwrap();
        assert_eq!(selector.current(), format!("{ISTIOD}:15012"));
        publish.send_replace(Arc::new(Membership {
            discovery_address: "after:2".to_owned(),
            ..membership()
        }));
        known.changed().await.unwrap();
        assert_eq!(selector.current(), "after:2");
    }
}
