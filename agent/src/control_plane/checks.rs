//! Asks the control planes that are not in use how they are, so that it is known where to turn before it is needed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use super::choice::{Choice, HASTE};
use super::connect::{Connection, connect};
use crate::facts::{Credentials, Membership};
use crate::supervise::{Clock, Scope};

/// Between two questions to the same one, a quarter more or less.
const PERIOD: Duration = Duration::from_secs(5);

/// What is read.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// By which roots they are known, and where the only one is when none is configured.
    pub membership: watch::Receiver<Arc<Membership>>,
    /// What the VM shows, and further roots.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Judges the certificate.
    pub clock: Clock,
}

/// Keeps `choice` informed until the drain. `configured` are the operator's addresses; without any the choice
/// follows the membership's.
pub async fn check(scope: Scope, choice: Choice, configured: Vec<String>, inputs: Inputs) -> Result<()> {
    if configured.len() > 1 {
        for address in &configured {
            scope.spawn(keep_asking(address.clone(), choice.clone(), inputs.clone()));
        }
    }
    scope.ready();
    let mut membership = inputs.membership;
    loop {
        if configured.is_empty() {
            choice.replace(vec![membership.borrow_and_update().discovery_address.clone()]);
        }
        tokio::select! {
            biased;
            () = scope.draining() => return Ok(()),
            Ok(()) = membership.changed() => {}
        }
    }
}

/// The current one is left to its users: a question more proves nothing that its streams don't.
async fn keep_asking(address: String, choice: Choice, inputs: Inputs) {
    let mut held = None;
    loop {
        if choice.current() == address {
            held = None;
        } else {
            match ask(&address, held.take(), &inputs).await {
                Ok(connection) => {
                    held = Some(connection);
                    choice.well(&address);
                }
                // It may have become the current one meanwhile.
                Err(error) if choice.current() != address => choice.failed(&address, &error),
                Err(_) => {}
            }
        }
        sleep(PERIOD.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
    }
}

/// Asks on the connection at hand, or on a new one; returns it when there was an answer.
async fn ask(address: &str, held: Option<Connection>, inputs: &Inputs) -> Result<Connection> {
    let connection = match held {
        Some(connection) => connection,
        None => {
            let (membership, credentials) = (inputs.membership.borrow().clone(), inputs.credentials.borrow().clone());
            let now = inputs.clock.now();
            connect(&membership, address, credentials.as_deref(), now, HASTE).await?
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
    use crate::facts::Standing;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[tokio::test]
    async fn all_but_the_current_one_are_asked() {
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
        let choice = Choice::new(addresses.clone(), DAY, Clock::System);
        let mut known = choice.subscribe();
        let task = check(scope.clone(), choice.clone(), addresses, inputs);
        scope.spawn(async move { task.await.unwrap() });
        let all_but_one = async {
            while choice
                .facts()
                .all
                .iter()
                .filter(|one| one.standing != Standing::Unknown)
                .count()
                < 3
            {
                known.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), all_but_one)
            .await
            .unwrap();
        let standings = choice.facts().all.into_iter().map(|one| one.standing);
        let standings: Vec<String> = standings.map(|standing| format!("{standing:?}")).collect();
        assert_eq!((standings[0].as_str(), standings[2].as_str()), ("Unknown", "Well"));
        assert!(standings[1].contains("nothing listens there"), "{standings:?}");
        assert!(standings[3].contains("no answer within 3s"), "{standings:?}");
    }

    #[tokio::test]
    async fn without_configured_addresses_the_membership_is_followed() {
        let (scope, _drain) = Scope::detached();
        let (publish, receive) = watch::channel(Arc::new(membership()));
        let inputs = Inputs {
            membership: receive,
            credentials: watch::channel(None).1,
            clock: Clock::System,
        };
        let choice = Choice::new(vec!["before:1".to_owned()], DAY, Clock::System);
        let mut known = choice.subscribe();
        let task = check(scope.clone(), choice.clone(), Vec::new(), inputs);
        scope.spawn(async move { task.await.unwrap() });
        known.changed().await.unwrap();
        assert_eq!(choice.current(), format!("{ISTIOD}:15012"));
        publish.send_replace(Arc::new(Membership {
            discovery_address: "after:2".to_owned(),
            ..membership()
        }));
        known.changed().await.unwrap();
        assert_eq!(choice.current(), "after:2");
    }
}
