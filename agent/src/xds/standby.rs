//! The VM's place in the mesh while no agent holds it: a process of its own that hears from the agent what to say to istiod,
//! and says it by a stream of its own when the agent falls silent. So neither an agent that hangs nor one that stays away takes
//! a VM that serves out of the mesh, which istiod does 10 s after the end of its last stream.
//!
//! ```text
//!         the agent gives the place            SILENCE without a word
//! nothing ────────────────────────▶ looking on ───────────────────────▶ holding
//!    ▲                                │  ▲                                 │
//!    └── the agent takes it back ─────┘  └── a word of the agent's ────────┤
//!                                        └── a word, after LONGEST, the certificate's end, or Envoy's
//! ```
//!
//! The place is taken back by an agent whose VM is unhealthy, whose Envoy is down, or which leaves: what ends after that ends
//! for good. The key is read when it is used, and not before.

mod place;

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{Context, Inputs, Options, Outputs, own_stream};
use crate::config::{PathsConfig, ports};
use crate::control_plane::ControlPlaneSelector;
use crate::facts::{Credentials, Membership, ProbeState};
use crate::host::Host;
use crate::supervise::{Clock, Scope};
use place::BEAT;
pub(super) use place::{Place, Word, tell};

/// Time without a word after which the agent is taken for gone or hung. A restart of the agent is over before, and istiod's
/// grace (10 s) is not.
const SILENCE: Duration = Duration::from_secs(4);
const _: () = assert!(SILENCE.as_secs() >= 4 * BEAT.as_secs());
/// Longest time for which the place is held: nobody looks after Envoy and the application meanwhile.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Time between two looks at Envoy.
const LOOK: Duration = Duration::from_secs(2);
/// Time after which an agent that isn't there is looked for again.
const ABSENCE: Duration = Duration::from_millis(250);
/// Longest word, in bytes: most of it are the mesh's roots.
const MAX_WORD: u64 = 4 << 20;

/// Last word of the agent.
#[derive(Clone, Debug)]
struct Heard {
    place: Option<Place>,
    /// Time of the last word.
    at: Instant,
}

/// Holds the VM's place whenever the agent that has `paths` falls silent, until the drain. `credentials` reads the VM's.
///
/// # Errors
/// None: an agent that isn't there may come.
pub async fn stand_by<F>(scope: Scope, host: Host, paths: PathsConfig, credentials: F) -> Result<()>
where
    F: Fn(&Host) -> Result<Option<Credentials>> + Send + Sync,
{
    let (publish, heard) = watch::channel(Heard {
        place: None,
        at: Instant::now(),
    });
    scope.spawn_loop(listen(host.real_path(&paths.place_socket()), publish));
    scope.ready();
    let envoy =
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(|ip| SocketAddr::new(ip, ports::READINESS));
    let hold = |place| {
        let context = context(&host, &paths, place, credentials(&host));
        async move {
            match context {
                Ok((context, life)) => hold(&context, life, &envoy).await,
                Err(error) => format!("{error:#}"),
            }
        }
    };
    tokio::select! {
        () = scope.draining() => Ok(()),
        never = look_on(heard, hold) => match never {},
    }
}

/// Hears each agent that comes. The place that one has given outlives it.
async fn listen(socket: PathBuf, publish: watch::Sender<Heard>) -> Infallible {
    loop {
        if let Ok(stream) = UnixStream::connect(&socket).await
            && let Err(error) = hear(stream, &publish).await
        {
            tracing::warn!("failed to understand the agent, which is to take this for nothing: {error:#}");
            publish.send_modify(|heard| heard.place = None);
        }
        sleep(ABSENCE).await;
    }
}

/// Takes the agent's words until it ends.
async fn hear(stream: UnixStream, publish: &watch::Sender<Heard>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        // A broken connection is the agent's end, too.
        let length = (&mut stream)
            .take(MAX_WORD)
            .read_until(b'\n', &mut line)
            .await
            .unwrap_or(0);
        if length == 0 {
            return Ok(());
        }
        ensure!(
            line.last() == Some(&b'\n'),
            "a word is cut, or longer than {MAX_WORD} bytes"
        );
        let word = Word::parse(&line).context("what it says is damaged")?;
        publish.send_modify(|heard| {
            heard.at = Instant::now();
            match word {
                Word::Here => {}
                Word::Hold(place) => {
                    if heard.place.replace(place).is_none() {
                        tracing::info!("standing by for this VM's place in the mesh");
                    }
                }
                Word::Forget => heard.place = None,
            }
        });
    }
}

/// Has the place held whenever an agent that has given it falls silent, once for each silence. `hold` returns the reason why it
/// holds it no more.
async fn look_on<H>(mut heard: watch::Receiver<Heard>, hold: impl Fn(Place) -> H) -> Infallible
where
    H: Future<Output = String>,
{
    loop {
        let place = silence(&mut heard).await;
        tracing::warn!("the agent has said nothing for {SILENCE:?}: holding this VM's place in the mesh in its place");
        tokio::select! {
            biased;
            () = changed(&mut heard) => tracing::info!("the agent is back, and holds this VM's place itself"),
            reason = hold(place) => {
                tracing::warn!("this VM's place in the mesh is held no more: {reason}");
                changed(&mut heard).await;
            }
        }
    }
}

/// Completes when an agent that has given the place has been silent for too long.
async fn silence(heard: &mut watch::Receiver<Heard>) -> Place {
    loop {
        let Heard { place, at } = heard.borrow_and_update().clone();
        match place {
            None => changed(heard).await,
            Some(place) => {
                if timeout_at(at + SILENCE, changed(heard)).await.is_err() {
                    return place;
                }
            }
        }
    }
}

async fn changed(heard: &mut watch::Receiver<Heard>) {
    if heard.changed().await.is_err() {
        // Nobody listens any more: this process ends.
        std::future::pending::<()>().await;
    }
}

/// All that a stream needs, and the time that is left of the certificate's.
pub(super) fn context(
    host: &Host,
    paths: &PathsConfig,
    place: Place,
    credentials: Result<Option<Credentials>>,
) -> Result<(Context, Duration)> {
    let credentials = credentials?.context("there is no certificate")?;
    let life = credentials.not_after.duration_since(SystemTime::now());
    let life = life.ok().context("its certificate has ended")?;
    let Place {
        control_planes,
        hosts,
        roots_pem,
        cluster_id,
        healthy,
    } = place;
    ensure!(!control_planes.is_empty(), "there is no control plane");
    let told = match healthy {
        true => ProbeState::Healthy,
        false => ProbeState::NotConfigured,
    };
    let membership = Membership {
        hosts,
        roots_pem,
        cluster_id,
        ..Membership::default()
    };
    let selector = ControlPlaneSelector::new(control_planes, LONGEST, Clock::System);
    let inputs = Inputs {
        membership: constant(membership.into()),
        credentials: constant(Some(credentials.into())),
        probe: constant(told),
        envoy: constant(Default::default()),
        host: constant(Default::default()),
        departure: constant(Default::default()),
    };
    let outputs = Outputs {
        state: watch::Sender::default(),
        names: watch::Sender::default(),
    };
    Ok((
        Context::new(Options::new(host.clone(), paths, selector), inputs, outputs),
        life,
    ))
}

/// A fact that nobody changes any more.
fn constant<T>(value: T) -> watch::Receiver<T> {
    watch::channel(value).1
}

/// Holds the place by a stream of its own, for an Envoy that listens at one of these addresses; returns the reason why no more.
pub(super) async fn hold(context: &Context, life: Duration, envoy: &[SocketAddr]) -> String {
    let Some(node) = context.kept_node() else {
        return "nobody has said who it is".to_owned();
    };
    tokio::select! {
        biased;
        () = gone(envoy) => "its Envoy is gone".to_owned(),
        () = sleep(life) => "its certificate has ended".to_owned(),
        () = sleep(LONGEST) => format!("no agent has come back within {LONGEST:?}"),
        never = own_stream::keep_open(context, &node) => match never {},
    }
}

/// Completes when nobody listens on Envoy's own port: who calls this VM would be refused.
async fn gone(envoy: &[SocketAddr]) {
    while matches!(timeout(LOOK, TcpStream::connect(envoy)).await, Ok(Ok(_))) {
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests;
