//! A number of places, and who has to give one up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Client, Refusals};

/// A number of places that clients share fairly. While there are free ones everybody gets one; then whoever comes gets
/// that of the client with the most of them, the one that it used least lately, and of several such clients first that of
/// one that has asked nothing yet. So a client can fill them all, and keeps nobody out; and whoever only opens connections
/// cuts no answer off, from however many addresses. What is turned away is counted.
#[derive(Clone, Debug)]
pub struct Shares(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    what: &'static str,
    places: usize,
    /// A client keeps a place for so long against itself.
    rest: Duration,
    refusals: Refusals,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The least lately used one first.
    taken: Vec<Taken>,
    /// Number of the next place; none is used twice.
    number: u64,
}

#[derive(Debug)]
struct Taken {
    client: Client,
    since: Instant,
    lost: CancellationToken,
    number: u64,
    /// True when its client has asked, and waits for the answer.
    is_answering: bool,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    shares: Arc<Inner>,
    lost: CancellationToken,
    number: u64,
}

impl Shares {
    /// Shares of `places` for `what`: a few words in the plural, as `status` names what is turned away. A client's
    /// newest takes the place of its own oldest only after that one had `rest`, and is itself turned away before: this
    /// bounds how much a client can have begun in vain.
    pub fn new(what: &'static str, places: usize, rest: Duration, refusals: Refusals) -> Self {
        Self(Arc::new(Inner {
            what,
            places,
            rest,
            refusals,
            table: Mutex::default(),
        }))
    }

    /// A place for `client`; `None` when the client has the most of them and no old one.
    pub fn take(&self, client: Client) -> Option<Place> {
        let inner = &self.0;
        let mut table = inner.table();
        let Table { taken, number } = &mut *table;
        if taken.len() >= inner.places {
            let oldest = oldest_of_the_heaviest(taken, client)?;
            let loser = taken.get(oldest)?;
            let (whose, rested) = (loser.client, loser.since.elapsed() >= inner.rest);
            inner.refusals.count(inner.what, whose);
            if whose == client && !rested {
                return None;
            }
            taken.remove(oldest).lost.cancel();
        }
        let (since, lost) = (Instant::now(), CancellationToken::new());
        *number += 1;
        taken.push(Taken {
            client,
            since,
            lost: lost.clone(),
            number: *number,
            is_answering: false,
        });
        Some(Place {
            shares: Arc::clone(inner),
            lost,
            number: *number,
        })
    }

    /// Number of shares that are taken.
    pub fn taken(&self) -> usize {
        self.0.table().taken.len()
    }
}

/// Index of the place to give up, were `newcomer` to have one more: of the clients with the most places the one that is
/// used least lately, of those that aren't being answered as long as there are any.
fn oldest_of_the_heaviest(taken: &[Taken], newcomer: Client) -> Option<usize> {
    let mut counts = HashMap::from([(newcomer, 1_usize)]);
    for one in taken {
        *counts.entry(one.client).or_default() += 1;
    }
    let most = counts.values().max().copied();
    let is_heaviest = |one: &Taken| counts.get(&one.client).copied() == most;
    let idle = taken.iter().position(|one| !one.is_answering && is_heaviest(one));
    idle.or_else(|| taken.iter().position(is_heaviest))
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Completes when somebody else got the place.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Says that it is used now.
    pub fn used(&self) {
        let taken = &mut self.shares.table().taken;
        if let Some(at) = taken.iter().position(|one| one.number == self.number) {
            let one = taken.remove(at);
            taken.push(one);
        }
    }

    /// Says that its client has asked, and is being answered until the place is free again.
    pub fn answering(&self) {
        let taken = &mut self.shares.table().taken;
        if let Some(one) = taken.iter_mut().find(|one| one.number == self.number) {
            one.is_answering = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shares.table().taken.retain(|one| one.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(places: usize, rest: Duration) -> (Shares, Refusals) {
        let refusals = Refusals::default();
        (Shares::new("places", places, rest, refusals.clone()), refusals)
    }

    fn is_lost(place: &Place) -> bool {
        place.lost.is_cancelled()
    }

    #[test]
    fn share_of_who_has_the_most_gives_up_the_oldest_and_nobody_else_does() {
        let (shares, refusals) = shares(4, Duration::ZERO);
        let [greedy, modest, late] = [1, 2, 3].map(Client::User);
        let hoard: Vec<Place> = (0..3).filter_map(|_| shares.take(greedy)).collect();
        let one = shares.take(modest).unwrap();
        hoard[0].used();
        let _newest = shares.take(late).unwrap();
        assert_eq!(hoard.iter().map(is_lost).collect::<Vec<_>>(), [false, true, false]);
        for _ in 0..1_000 {
            let _place = shares.take(greedy);
        }
        assert!(!is_lost(&one) && shares.taken() <= 4);
        let [refused] = refusals.all().try_into().unwrap();
        assert_eq!((refused.what.as_str(), refused.whose.as_str()), ("places", "uid 1"));
    }

    #[test]
    fn who_is_being_answered_keeps_the_place_while_others_only_hold_theirs() {
        let (shares, _) = shares(8, Duration::ZERO);
        let host = |number| Client::host(std::net::Ipv4Addr::from_bits(number).into());
        let scrape = shares.take(host(0)).unwrap();
        scrape.answering();
        // Of as many addresses as there are connections.
        let mut held: Vec<Place> = Vec::new();
        for number in 1..100 {
            held.extend(shares.take(host(number)));
            held.retain(|place| !is_lost(place));
        }
        assert!(!is_lost(&scrape) && shares.taken() == 8);
        // Where all are being answered, the oldest goes: there is no more room than that.
        held.iter().for_each(Place::answering);
        let _late = shares.take(host(100)).unwrap();
        assert!(is_lost(&scrape));
    }

    #[tokio::test(start_paused = true)]
    async fn client_has_rest_from_itself_and_not_from_others() {
        let (shares, _) = shares(1, Duration::from_secs(1));
        let first = shares.take(Client::User(1)).unwrap();
        assert!(shares.take(Client::User(1)).is_none() && !is_lost(&first));
        tokio::time::advance(Duration::from_secs(1)).await;
        let second = shares.take(Client::User(1)).unwrap();
        assert!(is_lost(&first));
        // What was lost has no say any more.
        drop(first);
        assert_eq!(shares.taken(), 1);
        let _other = shares.take(Client::User(2)).unwrap();
        assert!(is_lost(&second));
    }

    proptest! {
        /// Whoever has no more than an equal part of the places loses none of them.
        #[test]
        fn equal_part_is_safe(clients in proptest::collection::vec(0_u32..4, 1..200)) {
            let (shares, _) = shares(8, Duration::ZERO);
            let mut held: Vec<(u32, Place)> = Vec::new();
            for client in clients {
                let before: Vec<usize> = (0..4).map(|one| held.iter().filter(|(of, _)| *of == one).count()).collect();
                held.push((client, shares.take(Client::User(client)).unwrap()));
                held.retain(|(of, place)| {
                    assert!(!is_lost(place) || before[*of as usize] > 1, "{of} had {before:?}");
                    !is_lost(place)
                });
                prop_assert!(shares.taken() <= 8 && shares.taken() == held.len());
            }
        }
    }
}
