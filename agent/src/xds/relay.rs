//! One stream of Envoy's, from its start to its end, whatever becomes of the peers that answer it.
//!
//! Envoy's stream is held open when an istiod goes away: it keeps its configuration, and the next istiod is told
//! what Envoy asked for and has (`session`). At most one peer serves Envoy (`current`), and at most one attempt to have
//! another is under way (`attempts`):
//!
//! ```text
//!            reconcile              connected            first response
//! attempt:  none ───▶ Connecting ───────────▶ Opened ───────────────────┐
//!            ▲            │ failed, or another    │                     │
//!            └── pause ◀──┴── one is selected ◀───┘                     │ takes over: the old one is dropped
//!                                                                       ▼
//! current:  none ──────────────────────────────────────────────────▶ serving
//!            ▲                 disconnected: a pause if that came soon  │
//!            └──────────────────────────────────────────────────────────┘
//! ```
//!
//! An attempt begins when no istiod serves, or when the one that serves is no longer where the selected control plane is
//! (`Peer::is_at`), and no pause is on. While an attempt is `Opened`, the responses of the one that serves wait, so that
//! what its successor was told stays true; Envoy's requests go to both.
//!
//! An Envoy that has nothing is served by the snapshot while no istiod does, and at once when it follows one that has died
//! (`fallback`). It is no istiod to the attempts, and waits for none: an attempt that was opened before it answers would tell
//! its istiod less than Envoy has, and begins anew.

mod attempts;
mod fallback;

use std::future::pending;
use std::pin::Pin;

use anyhow::{Error, Result};
use bytes::Bytes;
use istio_api::frame::{Frame, XdsProtocol};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use self::attempts::{AttemptEvent, Attempts};
pub(super) use self::attempts::{Ready, connect};
use self::fallback::Fallback;
use super::Context;
use super::conversation::{Conversation, Passed};
use super::peer::Disconnect;
use super::upstream::Upstream;
use crate::host::network::Reach;

type ToEnvoy = mpsc::Sender<Result<Frame, Status>>;
type Room = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The reason for which an Envoy that serves has no stream any more.
const HUNG_UP: &str = "the VM is leaving the mesh";

/// Relays until Envoy ends its stream, `replaced` is cancelled or the VM hangs up. Envoy is told the end, but for the last:
/// without a stream it would ask for another all the time. Gives the node of an Envoy whose address the VM has left.
pub(super) async fn run(
    context: &Context,
    protocol: XdsProtocol,
    from_envoy: Streaming<Frame>,
    to_envoy: ToEnvoy,
    replaced: CancellationToken,
) -> Option<Bytes> {
    context.report.envoy_connected();
    let mut relay = Relay {
        context,
        conversation: Conversation::new(context, protocol),
        current: None,
        attempts: Attempts::new(context),
        fallback: Fallback::new(context),
    };
    let end = tokio::select! {
        biased;
        () = context.hung_up.cancelled() => Status::unavailable(HUNG_UP),
        () = replaced.cancelled() => Status::unavailable("Envoy opened another stream"),
        () = to_envoy.closed() => Status::cancelled("Envoy closed its stream"),
        end = relay.serve(from_envoy, &to_envoy) => end,
    };
    let Relay {
        conversation,
        current,
        attempts,
        ..
    } = relay;
    // istiod's stream ends here.
    drop((current, attempts));
    let left = conversation.left_node();
    context.kept_for.send_replace(conversation.finish().await);
    context.report.envoy_disconnected(end.message());
    if !context.hung_up.is_cancelled() {
        // Full means that Envoy doesn't read: it sees the end without the reason.
        let _ = to_envoy.try_send(Err(end));
    }
    left
}

struct Relay<'a> {
    context: &'a Context,
    conversation: Conversation<'a>,
    /// The one that serves Envoy.
    current: Option<Upstream>,
    /// The one that is to.
    attempts: Attempts<'a>,
    fallback: Fallback<'a>,
}

impl Relay<'_> {
    /// Returns what Envoy is told at the end.
    async fn serve(&mut self, mut from_envoy: Streaming<Frame>, to_envoy: &ToEnvoy) -> Status {
        let mut selection = self.context.options.selector.subscribe();
        let mut membership = self.context.inputs.membership.clone();
        let mut probe = self.context.inputs.probe.clone();
        let mut departure = self.context.inputs.departure.clone();
        let mut host = self.context.inputs.host.clone();
        let mut reach = Reach::of(&host.borrow());
        loop {
            if self.fallback.resumes(&self.conversation) {
                self.attempts.postpone();
                self.fall_back();
            }
            if !self.fallback.may_resume() {
                self.attempts.reconcile(istiod(self.current.as_ref()));
            }
            let rooms = [self.current.as_ref(), self.attempts.upstream()].map(|upstream| upstream.map(Upstream::room));
            let frozen = self.attempts.upstream().is_some() && istiod(self.current.as_ref()).is_some();
            let may_fall_back = self.current.is_none() && self.fallback.fits(&self.conversation);
            tokio::select! {
                message = request(&mut from_envoy, rooms) => match message {
                    Ok(Some(frame)) => {
                        let (current, next) = (self.current.as_mut(), self.attempts.upstream_mut());
                        if let Err(status) = self.conversation.request(&frame, current, next) {
                            return status;
                        }
                    }
                    Ok(None) => return Status::cancelled("Envoy closed its stream"),
                    Err(status) => return status,
                },
                event = self.attempts.next() => self.advance(event),
                (response, room) = response(self.current.as_mut(), to_envoy), if !frozen => match response {
                    Ok(frame) => self.pass(frame, room).await,
                    Err(disconnect) => self.lose(&disconnect),
                },
                () = self.fallback.due(), if may_fall_back || self.fallback.is_early() => self.miss_istiod(),
                () = self.conversation.recorder.due() => self.conversation.record(),
                Ok(()) = probe.changed() => self.tell_health(),
                Ok(()) = departure.changed() => self.conversation.recorder.hasten(),
                // These are looked at by `reconcile`.
                Ok(()) = selection.changed() => {}
                Ok(()) = membership.changed() => self.tell_health(),
                Ok(()) = host.changed() => {
                    if reach.differs(&host.borrow_and_update()) {
                        self.attempts.network_changed();
                    }
                    self.tell_health();
                }
            }
        }
    }

    fn advance(&mut self, event: AttemptEvent) {
        match event {
            AttemptEvent::PauseOver => {}
            AttemptEvent::Connected(ready) => self.open(*ready),
            AttemptEvent::Answered(first) => {
                if let Some(mut upstream) = self.attempts.succeeded() {
                    upstream.serve(first);
                    self.conversation.peer_changed();
                    // The old one, if there is one, ends here: its successor was told all that it has brought.
                    self.current = Some(upstream);
                }
            }
            AttemptEvent::Failed(error) => {
                self.attempts.failed(&error, istiod(self.current.as_ref()));
                if self.attempts.have_all_failed() {
                    self.fallback.hasten();
                }
            }
        }
    }

    /// istiod has had its time.
    fn miss_istiod(&mut self) {
        match &self.current {
            None => self.fall_back(),
            Some(current) => self.fallback.istiod_is_late(current.is_control_plane()),
        }
    }

    fn fall_back(&mut self) {
        self.current = self.fallback.begin(&self.conversation);
        self.conversation.peer_changed();
    }

    fn tell_health(&mut self) {
        let health = self.conversation.health();
        for upstream in self.current.iter_mut().chain(self.attempts.upstream_mut()) {
            upstream.send_health(&health);
        }
    }

    fn open(&mut self, Ready { connected, due }: Ready) {
        let protocol = self.conversation.protocol;
        let probe = self.conversation.health();
        // With a single control plane nobody can do better than one that is silent.
        let watched = self.context.options.selector.count() > 1;
        let wants_names = connected.wants_names();
        let upstream = Upstream::open(protocol, wants_names, &self.conversation.session, &probe, |requests| {
            connected.open(protocol, requests, due, watched)
        });
        self.attempts.opened(upstream);
    }

    fn lose(&mut self, disconnect: &Disconnect) {
        let Some(lost) = self.current.take() else { return };
        if lost.is_control_plane() {
            self.fallback.istiod_lost(lost.served_for());
            self.attempts.lost(disconnect, lost.served_for());
        } else {
            self.fallback.failed(&disconnect.error);
        }
    }

    async fn pass(&mut self, frame: Frame, room: mpsc::Permit<'_, Result<Frame, Status>>) {
        let Some(current) = self.current.as_mut() else { return };
        match self.conversation.response(frame, current).await {
            Ok(Passed::ToEnvoy(response)) => {
                if !current.is_control_plane() {
                    self.fallback.answered();
                    self.attempts.withdraw();
                }
                room.send(response);
            }
            Ok(Passed::ToAgent) => {}
            Err(error) => {
                let what = format!("istiod at {} sent what is no discovery response", current.address());
                let error = Error::new(error).context(what);
                self.lose(&Disconnect { error, silent: None });
            }
        }
    }
}

fn istiod(current: Option<&Upstream>) -> Option<&Upstream> {
    current.filter(|current| current.is_control_plane())
}

/// Envoy's next request, once every peer that is to hear of it has room.
async fn request(from_envoy: &mut Streaming<Frame>, rooms: [Option<Room>; 2]) -> Result<Option<Frame>, Status> {
    for room in rooms.into_iter().flatten() {
        room.await;
    }
    from_envoy.message().await
}

/// The peer's next response, once Envoy has room for it. Reading it never waits for a request to be sent: istiod
/// writes and reads in one loop, and both sides would stand still.
async fn response<'a>(
    current: Option<&mut Upstream>,
    to_envoy: &'a ToEnvoy,
) -> (Result<Frame, Disconnect>, mpsc::Permit<'a, Result<Frame, Status>>) {
    let (Some(current), Ok(room)) = (current, to_envoy.reserve().await) else {
        // Envoy's going is noticed elsewhere.
        return pending().await;
    };
    (current.next().await, room)
}
