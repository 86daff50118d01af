//! The agent's side: what is to be said to istiod in its place, and the telling of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_stream::StreamExt;

use crate::bounds::Refusals;
use crate::facts::{EnvoyState, HostEntry, ProbeState};
use crate::host::{Audience, Served, connections_of};
use crate::supervise::Scope;
use crate::xds::Context;

/// Time between two words of an agent that has no news.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// Standbys at a time: one that dies and the next.
const MOST: usize = 2;
/// Rest after a socket error, which out of memory or out of files gives without end.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// The VM's place in the mesh: how istiod is reached, and what it was told of the VM. No secret is in it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::xds) struct Place {
    /// Addresses of the control planes, `host:port`, the current one first.
    pub(in crate::xds) control_planes: Vec<String>,
    /// Lines of the bundle's hosts file.
    pub(in crate::xds) hosts: Vec<HostEntry>,
    /// PEM bundle that istiod is known by.
    pub(in crate::xds) roots_pem: String,
    /// Name of the VM's cluster.
    pub(in crate::xds) cluster_id: String,
    /// True when istiod was told that the VM is healthy, false where it takes no word on that.
    pub(in crate::xds) healthy: bool,
}

/// A word of the agent's to its standby: a line of JSON, or an empty one.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::xds) enum Word {
    /// No news.
    #[serde(skip)]
    Here,
    /// The place is to be held, should the agent fall silent.
    Hold(Place),
    /// None is.
    Forget,
}

impl Word {
    /// Reads a line, with its end or without.
    pub(in crate::xds) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        match line {
            b"" | b"\n" => Ok(Self::Here),
            line => serde_json::from_slice(line),
        }
    }

    pub(in crate::xds) fn line(&self) -> Vec<u8> {
        // Nothing of what it is made of can fail to be JSON; a standby that is told nothing holds nothing.
        let mut line = match self {
            Self::Here => Vec::new(),
            word => serde_json::to_vec(word).unwrap_or_default(),
        };
        line.push(b'\n');
        line
    }

    /// The word for these facts; [`Word::Here`] while an agent that has just begun can't judge yet: what the one before it has
    /// said stands.
    fn of(context: &Context) -> Self {
        let inputs = &context.inputs;
        let membership = inputs.membership.borrow().clone();
        let is_registered = membership.auto_register_group().is_some();
        if inputs.departure.borrow().is_leaving() || !is_registered {
            return Self::Forget;
        }
        let told = inputs.probe.borrow().clone();
        let is_up = match &*inputs.envoy.borrow() {
            EnvoyState::Ready { .. } => true,
            EnvoyState::Waiting | EnvoyState::Fetching { .. } | EnvoyState::Starting { .. } => return Self::Here,
            EnvoyState::Down { .. } | EnvoyState::Draining { .. } => false,
        };
        match told {
            ProbeState::Unknown => Self::Here,
            ProbeState::Healthy | ProbeState::NotConfigured if is_up => Self::Hold(Place {
                control_planes: context.options.selector.candidates(),
                hosts: membership.hosts.clone(),
                roots_pem: membership.roots_pem.clone(),
                cluster_id: membership.cluster_id.clone(),
                healthy: told == ProbeState::Healthy,
            }),
            _ => Self::Forget,
        }
    }
}

/// Tells the standby, which this has systemd start, what to say in the agent's place.
pub(in crate::xds) fn tell(scope: &Scope, context: Arc<Context>, listener: UnixListener) {
    let (host, refusals) = (context.options.host.clone(), context.options.refusals.clone());
    if let Some(unit) = context.options.standby.clone() {
        scope.spawn(async move {
            if let Err(error) = host.blocking(move |host| Ok(host.start_unit(&unit)?)).await {
                tracing::warn!("nobody holds this VM's place in the mesh while the agent doesn't: {error:#}");
            }
        });
    }
    let (publish, word) = watch::channel(Word::Here);
    scope.spawn_loop(follow(context, publish));
    scope.spawn_loop(serve(listener, refusals, word));
}

/// Publishes what the standby is to know.
async fn follow(context: Arc<Context>, word: watch::Sender<Word>) -> Infallible {
    let inputs = &context.inputs;
    let (mut membership, mut probe) = (inputs.membership.clone(), inputs.probe.clone());
    let (mut envoy, mut departure) = (inputs.envoy.clone(), inputs.departure.clone());
    let mut selector = context.options.selector.subscribe();
    loop {
        let now = Word::of(&context);
        word.send_if_modified(|word| {
            let is_news = now != Word::Here && *word != now;
            if is_news {
                *word = now;
            }
            is_news
        });
        let changed = tokio::select! {
            changed = membership.changed() => changed.is_ok(),
            changed = probe.changed() => changed.is_ok(),
            changed = envoy.changed() => changed.is_ok(),
            changed = departure.changed() => changed.is_ok(),
            changed = selector.changed() => changed.is_ok(),
        };
        if !changed {
            // A publisher is gone, and so is the agent soon.
            std::future::pending::<()>().await;
        }
    }
}

/// Tells the standby, whoever of root's it is, each word, and every second that the agent is there.
async fn serve(listener: UnixListener, refusals: Refusals, mut word: watch::Receiver<Word>) -> Infallible {
    let audience = Audience {
        users: Vec::new(),
        most: MOST,
        refusals,
    };
    let mut connections = std::pin::pin!(connections_of(audience, listener));
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut standby: Option<Served> = None;
    loop {
        let line = tokio::select! {
            Some(connection) = connections.next() => match connection {
                Ok(connection) => {
                    standby = Some(connection);
                    word.borrow_and_update().line()
                }
                Err(_) => {
                    sleep(ERROR_PAUSE).await;
                    continue;
                }
            },
            Ok(()) = word.changed() => word.borrow_and_update().line(),
            _ = beat.tick() => Word::Here.line(),
        };
        standby = match standby {
            Some(mut connection) => match timeout(BEAT, connection.write_all(&line)).await {
                Ok(Ok(())) => Some(connection),
                // It has gone, or hangs: the next one is told anew.
                _ => None,
            },
            None => None,
        };
    }
}
