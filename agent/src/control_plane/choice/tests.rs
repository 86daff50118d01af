use anyhow::anyhow;
use tokio::time::advance;

use super::*;

const HOME: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn choice(addresses: &[&str]) -> Choice {
    let clock = Clock::starting_at(SystemTime::UNIX_EPOCH);
    Choice::new(
        addresses.iter().map(|&address| address.to_owned()).collect(),
        HOME,
        clock,
    )
}

fn fails(choice: &Choice, address: &str) {
    choice.failed(address, &anyhow!("no answer"));
}

/// Says every second that `address` is well, until it is the current one; returns after how long.
async fn until_home(choice: &Choice, address: &str) -> Duration {
    let start = Instant::now();
    loop {
        choice.well(address);
        if choice.current() == address {
            return start.elapsed();
        }
        assert!(start.elapsed() < 10 * HOME, "never");
        advance(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_the_current_one_turns_to_the_first_that_is_well() {
    let choice = choice(&["a", "b", "c"]);
    assert_eq!(choice.candidates(), ["a", "b", "c"]);
    choice.well("c");
    fails(&choice, "a");
    assert_eq!(choice.current(), "c");
    assert_eq!(choice.candidates(), ["c", "b", "a"]);
    let facts = choice.facts();
    assert_eq!(facts.reason.as_deref(), Some("no answer"));
    let standings: Vec<Standing> = facts.all.into_iter().map(|one| one.standing).collect();
    let error = "no answer".to_owned();
    assert_eq!(
        standings,
        [Standing::Unwell { error }, Standing::Unknown, Standing::Well]
    );
}

#[tokio::test(start_paused = true)]
async fn an_unknown_one_is_better_than_none_and_then_each_has_its_turn() {
    let choice = choice(&["a", "b", "c"]);
    let mut turns = Vec::new();
    for _ in 0..6 {
        turns.push(choice.current());
        fails(&choice, &choice.current());
    }
    assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
    assert!(!choice.has_refuge_from("a"));
    choice.well("c");
    assert_eq!((choice.current().as_str(), choice.has_refuge_from("a")), ("c", true));
    assert!(!choice.has_refuge_from("c"));
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_another_than_the_current_one_turns_nothing() {
    let choice = choice(&["a", "b"]);
    choice.well("a");
    fails(&choice, "b");
    fails(&choice, "stranger");
    assert_eq!((choice.current().as_str(), choice.facts().reason), ("a", None));
}

#[tokio::test(start_paused = true)]
async fn the_preferred_one_returns_after_it_has_been_well_for_a_while() {
    let choice = choice(&["a", "b"]);
    choice.well("b");
    fails(&choice, "a");
    advance(5 * HOME).await;
    // Being well breaks off shortly before the time.
    choice.well("a");
    advance(HOME - SECOND).await;
    choice.well("a");
    fails(&choice, "a");
    assert_eq!(choice.current(), "b");
    let took = until_home(&choice, "a").await;
    assert!((HOME..=2 * HOME + SECOND).contains(&took), "{took:?}");
    let facts = choice.facts();
    let reason = facts.reason.unwrap();
    // As long as it took.
    let said = ["1m", "2m"].map(|minutes| format!("it is preferred, and has been well for {minutes}"));
    assert!(said.iter().any(|said| reason.starts_with(said)), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_fleet_does_not_return_at_once() {
    let mut times = Vec::new();
    for _ in 0..200 {
        let choice = choice(&["a", "b"]);
        choice.well("b");
        fails(&choice, "a");
        times.push(until_home(&choice, "a").await.as_secs());
    }
    // A minute has six times ten seconds.
    for part in 0..6 {
        let (from, to) = (60 + 10 * part, 70 + 10 * part);
        let count = times.iter().filter(|time| (from..to).contains(*time)).count();
        assert!((10..70).contains(&count), "{count} of 200 from {from} to {to} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_middle_one_is_on_the_way_home() {
    let choice = choice(&["a", "b", "c"]);
    choice.well("c");
    fails(&choice, "a");
    fails(&choice, "b");
    assert_eq!(choice.current(), "c");
    until_home(&choice, "b").await;
    until_home(&choice, "a").await;
    // It fails before the preferred one has been well for long: any that is well will do.
    fails(&choice, "a");
    choice.well("c");
    fails(&choice, "b");
    assert_eq!(choice.current(), "c");
    choice.well("a");
    fails(&choice, "c");
    assert_eq!(choice.current(), "a");
}

#[tokio::test(start_paused = true)]
async fn new_addresses_keep_what_is_known_of_the_old() {
    let choice = choice(&["a", "b"]);
    choice.well("b");
    fails(&choice, "a");
    let mut turned = choice.subscribe();
    turned.mark_unchanged();
    choice.replace(vec!["a".to_owned(), "b".to_owned()]);
    assert!(!turned.has_changed().unwrap());
    choice.replace(vec!["c".to_owned(), "a".to_owned(), "b".to_owned()]);
    assert_eq!(choice.candidates(), ["b", "c", "a"]);
    choice.replace(vec!["a".to_owned(), "c".to_owned()]);
    assert_eq!(choice.current(), "c");
    assert_eq!(
        choice.facts().reason.as_deref(),
        Some("b is no longer a control plane of this mesh")
    );
}
