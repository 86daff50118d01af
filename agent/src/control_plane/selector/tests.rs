use std::time::SystemTime;

use anyhow::anyhow;
use tokio::time::advance;

use super::*;
use crate::facts::ControlPlaneHealth;

const RETURN_AFTER: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn selector(addresses: &[&str]) -> ControlPlaneSelector {
    let clock = Clock::starting_at(SystemTime::UNIX_EPOCH);
    ControlPlaneSelector::new(
        addresses.iter().map(|&address| address.to_owned()).collect(),
        RETURN_AFTER,
        clock,
    )
}

fn fails(selector: &ControlPlaneSelector, address: &str) {
    selector.mark_unreachable(address, &anyhow!("no answer"));
}

/// Reports every second that `address` is reachable, until it is the current one; returns after how long.
async fn until_failback(selector: &ControlPlaneSelector, address: &str) -> Duration {
    let start = Instant::now();
    loop {
        selector.mark_reachable(address);
        if selector.current() == address {
            return start.elapsed();
        }
        assert!(start.elapsed() < 10 * RETURN_AFTER, "never");
        advance(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failure_of_the_current_one_turns_to_the_first_reachable_one() {
    let selector = selector(&["a", "b", "c"]);
    assert_eq!(selector.candidates(), ["a", "b", "c"]);
    selector.mark_reachable("c");
    fails(&selector, "a");
    assert_eq!(selector.current(), "c");
    assert_eq!(selector.candidates(), ["c", "b", "a"]);
    let facts = selector.facts();
    assert_eq!(facts.reason.as_deref(), Some("no answer"));
    let all_health: Vec<ControlPlaneHealth> = facts.all.into_iter().map(|one| one.health).collect();
    let error = "no answer".to_owned();
    assert_eq!(
        all_health,
        [
            ControlPlaneHealth::Unreachable { error },
            ControlPlaneHealth::Unknown,
            ControlPlaneHealth::Reachable
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_one_is_better_than_none_and_then_each_has_its_turn() {
    let selector = selector(&["a", "b", "c"]);
    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.push(selector.current());
        fails(&selector, &selector.current());
    }
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
    assert!(!selector.has_fallback_for("a"));
    selector.mark_reachable("c");
    assert_eq!(
        (selector.current().as_str(), selector.has_fallback_for("a")),
        ("c", true)
    );
    assert!(!selector.has_fallback_for("c"));
}

#[tokio::test(start_paused = true)]
async fn failure_of_another_than_the_current_one_turns_nothing() {
    let selector = selector(&["a", "b"]);
    selector.mark_reachable("a");
    fails(&selector, "b");
    fails(&selector, "stranger");
    assert_eq!((selector.current().as_str(), selector.facts().reason), ("a", None));
}

#[tokio::test(start_paused = true)]
async fn preferred_one_returns_after_it_has_been_reachable_for_a_while() {
    let selector = selector(&["a", "b"]);
    selector.mark_reachable("b");
    fails(&selector, "a");
    advance(5 * RETURN_AFTER).await;
    // It is unreachable once more shortly before the time.
    selector.mark_reachable("a");
    advance(RETURN_AFTER - SECOND).await;
    selector.mark_reachable("a");
    fails(&selector, "a");
    assert_eq!(selector.current(), "b");
    let took = until_failback(&selector, "a").await;
    assert!((RETURN_AFTER..=2 * RETURN_AFTER + SECOND).contains(&took), "{took:?}");
    let facts = selector.facts();
    let reason = facts.reason.unwrap();
    // As long as it took.
    let said = ["1m", "2m"].map(|minutes| format!("it is preferred, and has been well for {minutes}"));
    assert!(said.iter().any(|said| reason.starts_with(said)), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn fleet_does_not_return_at_once() {
    let mut times = Vec::new();
    for _ in 0..200 {
        let selector = selector(&["a", "b"]);
        selector.mark_reachable("b");
        fails(&selector, "a");
        times.push(until_failback(&selector, "a").await.as_secs());
    }
    // A minute has six times ten seconds.
    for part in 0..6 {
        let (from, to) = (60 + 10 * part, 70 + 10 * part);
        let count = times.iter().filter(|time| (from..to).contains(*time)).count();
        assert!((10..70).contains(&count), "{count} of 200 from {from} to {to} s");
    }
}

#[tokio::test(start_paused = true)]
async fn middle_one_takes_over_before_the_preferred_one() {
    let selector = selector(&["a", "b", "c"]);
    selector.mark_reachable("c");
    fails(&selector, "a");
    fails(&selector, "b");
    assert_eq!(selector.current(), "c");
    until_failback(&selector, "b").await;
    until_failback(&selector, "a").await;
    // It fails before the preferred one has been reachable for long: any reachable one will do.
    fails(&selector, "a");
    selector.mark_reachable("c");
    fails(&selector, "b");
    assert_eq!(selector.current(), "c");
    selector.mark_reachable("a");
    fails(&selector, "c");
    assert_eq!(selector.current(), "a");
}

#[tokio::test(start_paused = true)]
async fn new_addresses_keep_the_health_of_the_old() {
    let selector = selector(&["a", "b"]);
    selector.mark_reachable("b");
    fails(&selector, "a");
    let mut turned = selector.subscribe();
    turned.mark_unchanged();
    selector.replace(vec!["a".to_owned(), "b".to_owned()]);
    assert!(!turned.has_changed().unwrap());
    selector.replace(vec!["c".to_owned(), "a".to_owned(), "b".to_owned()]);
    assert_eq!(selector.candidates(), ["b", "c", "a"]);
    selector.replace(vec!["a".to_owned(), "c".to_owned()]);
    assert_eq!(selector.current(), "c");
    assert_eq!(
        selector.facts().reason.as_deref(),
        Some("b is no longer a control plane of this mesh")
    );
}
