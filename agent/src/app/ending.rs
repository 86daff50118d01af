//! The orders to end, of whoever may give one, and how much time each leaves the VM's callers.
//!
//! A signal, the cloud and root on port 15020 may each give theirs at any time, before the start is over and while an
//! earlier one is followed. The first decides on what becomes of the data path, and the one in the greatest haste on how long
//! callers are waited for.

use std::future::pending;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::{sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::facts::{Eviction, Order};
use crate::part::Channels;
use crate::supervise::Supervisor;

/// Longest time for which a stop waits for an agent that takes over: it starts in less than a second, unless a part of it
/// waits for what doesn't come.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Time after the notice from which on a VM that its cloud takes away waits for nobody any more. Google gives it 30 s, of
/// which its own shutdown is a part.
const EVICTION_TIMEOUT: Duration = Duration::from_secs(12);
/// The parts whose end has callers go elsewhere and empties Envoy, in the order in which they end.
const CALLERS: [&str; 2] = ["leave", "drain"];

/// An order to end.
#[derive(Debug)]
pub enum Stop {
    /// Leave the mesh and put the host back.
    Leave,
    /// The same, because the cloud takes the VM away.
    Evicted,
    /// The same, and wait for no caller.
    Quit,
    /// Leave Envoy, the rules and the container to the next agent.
    HandOver,
    /// The same, and the next agent is this process with the given configuration.
    Reload(Box<Config>),
}

/// The work that is left after the end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// Nothing.
    Done,
    /// Nothing, and no agent is to begin again: the cloud takes the VM away, or root ordered the end on port 15020.
    ForGood,
    /// Begin again in this process: what runs is taken over.
    BeginAgain,
}

/// The end of a run, by what becomes of the data path.
pub(super) enum End {
    /// The host is put back.
    Leave(Result<()>),
    /// Envoy, the rules and the container stay.
    HandOver(Result<()>),
    /// The parts that the next configuration has stay.
    BeginAgain(Option<Box<Config>>),
}

impl From<Stop> for End {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Leave | Stop::Evicted | Stop::Quit => Self::Leave(Ok(())),
            Stop::HandOver => Self::HandOver(Ok(())),
            Stop::Reload(config) => Self::BeginAgain(Some(config)),
        }
    }
}

/// The order to end, once it can be followed. To leave, a VM whose Envoy serves tells its callers first and drains Envoy, by
/// parts that are there when the agent has `started`; in `haste` it waits for no start.
pub(super) async fn once_it_can_leave(
    stop: impl Future<Output = Stop>,
    haste: impl Future<Output = ()>,
    resumed: bool,
    started: CancellationToken,
) -> Stop {
    let stop = stop.await;
    let leaves = matches!(stop, Stop::Leave | Stop::Evicted | Stop::Quit);
    if resumed && leaves {
        let has_started = tokio::select! {
            biased;
            started = timeout(START_TIMEOUT, started.cancelled()) => started.is_ok(),
            () = haste => false,
        };
        if !has_started {
            tracing::warn!("leaving although the agent has not taken over what runs: callers are not told");
        }
    }
    stop
}

/// Completes with an order that is no signal: the cloud's notice, or root's `/quitquitquit`.
pub(super) async fn told(channels: &Channels) -> Stop {
    tokio::select! {
        biased;
        Eviction { reason, .. } = evicted(channels) => {
            tracing::warn!("leaving the mesh: {reason}");
            Stop::Evicted
        }
        () = quit_ordered(channels) => {
            tracing::info!("/quitquitquit: leaving the mesh without waiting for callers");
            Stop::Quit
        }
    }
}

/// Completes when root orders `/drain`.
pub(super) async fn drain_ordered(channels: &Channels) {
    some(channels.order.subscribe(), |order| *order == Order::Drain).await;
}

async fn quit_ordered(channels: &Channels) {
    some(channels.order.subscribe(), |order| *order == Order::Quit).await;
}

async fn evicted(channels: &Channels) -> Eviction {
    some(channels.eviction.subscribe(), |_| true).await
}

/// The first value of a fact that is the wanted one.
async fn some<T: Clone>(mut fact: watch::Receiver<Option<T>>, wanted: impl Fn(&T) -> bool) -> T {
    let value = fact.wait_for(|value| value.as_ref().is_some_and(&wanted)).await;
    let value = value.ok().and_then(|value| value.clone());
    match value {
        Some(value) => value,
        // This very agent keeps the channel open.
        None => pending().await,
    }
}

/// Does what `/drain` orders, and waits for a stop, which may come before that is done. A VM that is out of the endpoints
/// stays so: nothing but a full end follows.
pub(super) async fn empty(supervisor: &mut Supervisor, stop: impl Future<Output = Stop>) -> End {
    tracing::info!("/drain: having callers go elsewhere, and waiting for a stop");
    let emptied = async {
        for part in CALLERS {
            supervisor.drain_one(part).await;
        }
        supervisor.failed().await
    };
    tokio::select! {
        biased;
        stop = stop => {
            tracing::info!(?stop, "leaving the mesh");
            End::Leave(Ok(()))
        }
        error = emptied => End::Leave(Err(error.context("a part failed after /drain"))),
    }
}

/// Completes when there is no time to wait for callers: `haste` says so, or root does, or the cloud is about to take the VM.
pub(super) async fn no_time_left(haste: impl Future<Output = ()>, channels: &Channels) {
    let late = async {
        let notice = evicted(channels).await;
        sleep_until(notice.at + EVICTION_TIMEOUT).await;
        tracing::warn!("the cloud takes this VM away within seconds");
    };
    tokio::select! {
        () = haste => {}
        () = late => {}
        () = quit_ordered(channels) => {}
    }
}

/// Waits for the drain, and tells those who make it wait when it is not to.
pub(super) async fn hasten(
    mut drain: impl Future<Output = ()> + Unpin,
    haste: impl Future<Output = ()>,
    hastened: &watch::Sender<bool>,
) {
    tokio::select! {
        biased;
        () = &mut drain => return,
        () = haste => {}
    }
    tracing::warn!("leaving without waiting for callers any longer");
    hastened.send_replace(true);
    drain.await;
}

/// True when the end was ordered by somebody who does not want another agent to begin.
pub(super) fn is_for_good(channels: &Channels) -> bool {
    channels.eviction.borrow().is_some() || channels.order.borrow().is_some()
}

#[cfg(test)]
mod tests;
