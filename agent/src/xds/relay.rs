//! One stream of Envoy's, from its start to its end, whatever becomes of the streams to istiod under it.
//!
//! Envoy's stream is held open when an istiod goes away: it keeps its configuration, and the next istiod is told
//! what Envoy asked for and has (`session`). A stream that runs is left for another only when the choice turned or
//! its address is none of istiod's any more, and then the new one is opened while the old one serves: from its
//! first request to its first answer the old one's responses wait, so that what the new one is told stays true.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Error, Result};
use istio_api::frame::{Frame, XdsProtocol};
use istio_api::nds::NAME_TABLE;
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Context;
use super::nacks::{Nacks, Verdict};
use super::session::Session;
use super::upstream::{Connected, Gate, Loss, Upstream};
use crate::control_plane::FAILOVER_TIMEOUT;
use crate::supervise::{Backoff, reconnect};

/// How long connecting may take, and how long istiod may take to answer the first request beside: it takes seconds
/// when it is throttled.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));
/// Longest that a stream which serves waits for the first answer on its successor.
const PAUSE: Duration = Duration::from_secs(5);
/// A stream that ran for so long was no failure.
const STEADY: Duration = Duration::from_secs(10);

type ToEnvoy = mpsc::Sender<Result<Frame, Status>>;

/// Relays until Envoy ends its stream or `replaced` is cancelled.
pub(super) async fn run(
    context: &Context,
    protocol: XdsProtocol,
    from_envoy: Streaming<Frame>,
    to_envoy: ToEnvoy,
    replaced: CancellationToken,
) {
    context.report.envoy_connected();
    let relay = Relay {
        context,
        protocol,
        session: Session::new(protocol),
        nacks: Nacks::default(),
        current: None,
        next: Next::Idle,
        tries: 0,
        backoff: reconnect(),
        pause: None,
    };
    let end = tokio::select! {
        biased;
        () = replaced.cancelled() => Status::unavailable("Envoy opened another stream"),
        () = to_envoy.closed() => Status::cancelled("Envoy closed its stream"),
        end = async {
            context.certified().await;
            relay.converse(from_envoy, &to_envoy).await
        } => end,
    };
    context.report.envoy_disconnected(end.message());
    // Full means that Envoy doesn't read: it sees the end without the reason.
    let _ = to_envoy.try_send(Err(end));
}

struct Relay<'a> {
    context: &'a Context,
    protocol: XdsProtocol,
    session: Session,
    nacks: Nacks,
    /// The one that serves Envoy.
    current: Option<Upstream>,
    /// The one that is to.
    next: Next<'a>,
    /// How many failed since one answered.
    tries: usize,
    backoff: Backoff,
    /// No try begins before its end.
    pause: Option<Pin<Box<Sleep>>>,
}

/// A try.
enum Next<'a> {
    Idle,
    Connecting {
        chosen: String,
        /// When the first answer is due, if the try is made in haste.
        due: Option<Instant>,
        connecting: Pin<Box<dyn Future<Output = Result<Connected>> + Send + 'a>>,
    },
    Asking(Box<Upstream>),
}

/// How a try went on.
enum Step {
    Connected(Box<Connected>, Option<Instant>),
    Answered(Frame),
    Failed(Error),
}

impl Relay<'_> {
    /// Returns what Envoy is told at the end.
    async fn converse(mut self, mut from_envoy: Streaming<Frame>, to_envoy: &ToEnvoy) -> Status {
        let mut selector = self.context.options.selector.subscribe();
        let mut membership = self.context.inputs.membership.clone();
        let mut probe = self.context.inputs.probe.clone();
        loop {
            self.steer();
            let frozen = matches!(self.next, Next::Asking(_));
            let gates = [self.current.as_ref(), self.next.asked()].map(|upstream| upstream.map(Upstream::gate));
            tokio::select! {
                message = ask(&mut from_envoy, gates) => match message {
                    Ok(Some(frame)) => if let Err(status) = self.request(frame) {
                        return status;
                    },
                    Ok(None) => return Status::cancelled("Envoy closed its stream"),
                    Err(status) => return status,
                },
                step = self.next.step() => self.advance(step),
                (response, room) = receive(self.current.as_mut(), to_envoy), if !frozen => match response {
                    Ok(frame) => self.response(frame, room),
                    Err(loss) => self.lose(loss),
                },
                Ok(()) = probe.changed() => {
                    let state = probe.borrow_and_update().clone();
                    for upstream in self.current.iter_mut().chain(self.next.asked_mut()) {
                        upstream.tell_health(&state);
                    }
                }
                Ok(()) = selector.changed() => {}
                Ok(()) = membership.changed() => {}
                () = wait(&mut self.pause) => self.pause = None,
            }
        }
    }

    /// Begins a try when one is due, and gives one up that leads elsewhere by now.
    fn steer(&mut self) {
        let selector = &self.context.options.selector;
        let wanted = selector.current();
        if self.next.chosen().is_some_and(|chosen| chosen != wanted) {
            self.next = Next::Idle;
        }
        let membership = self.context.inputs.membership.borrow().clone();
        let current = self.current.as_ref();
        let fits = current.is_some_and(|current| current.chosen == wanted && current.is_where(&membership));
        if fits || self.pause.is_some() || !matches!(self.next, Next::Idle) {
            return;
        }
        // With nowhere else to go, or after every one was tried in haste, slow ones are waited for.
        let hasty = self.current.is_none() && self.tries < selector.count() && selector.has_fallback_for(&wanted);
        let due = hasty.then(|| Instant::now() + FAILOVER_TIMEOUT);
        let patience = if hasty { FAILOVER_TIMEOUT } else { PATIENCE.0 };
        self.next = Next::Connecting {
            chosen: wanted.clone(),
            due,
            connecting: Box::pin(Connected::to(self.context, wanted, patience)),
        };
    }

    fn advance(&mut self, step: Step) {
        match step {
            Step::Connected(connected, due) => {
                let patience = if self.current.is_some() { PAUSE } else { PATIENCE.1 };
                let due = due.unwrap_or_else(|| Instant::now() + patience);
                let probe = self.context.inputs.probe.borrow().clone();
                let guarded = self.context.options.selector.count() > 1;
                let upstream = connected.open(&self.session, self.protocol, &probe, due, guarded);
                self.next = Next::Asking(Box::new(upstream));
            }
            Step::Answered(first) => {
                let Next::Asking(mut upstream) = std::mem::replace(&mut self.next, Next::Idle) else {
                    return;
                };
                self.context.options.selector.mark_reachable(&upstream.chosen);
                self.context.report.connected(&upstream.address);
                upstream.serve(first);
                self.tries = 0;
                self.nacks = Nacks::default();
                // The old one, if there is one, ends here.
                self.current = Some(*upstream);
            }
            Step::Failed(error) => self.fail(&error),
        }
    }

    /// A try failed. All are tried at once, and then the agent pauses.
    fn fail(&mut self, error: &Error) {
        let selector = &self.context.options.selector;
        if let Some(chosen) = self.next.chosen() {
            selector.mark_unreachable(chosen, error);
        }
        self.next = Next::Idle;
        self.tries += 1;
        match &self.current {
            Some(current) => tracing::warn!("stayed with istiod at {}: {error:#}", current.address),
            None => self.context.report.failed(error),
        }
        if self.current.is_some() || self.tries.is_multiple_of(selector.count()) {
            self.pause = Some(Box::pin(sleep(self.backoff.next_wait())));
        }
    }

    /// The stream that served is over. The same istiod is tried first, unless it is silent.
    fn lose(&mut self, loss: Loss) {
        let Some(lost) = self.current.take() else { return };
        self.context.report.failed(&loss.error);
        if loss.silent {
            self.context
                .options
                .selector
                .mark_unreachable(&lost.chosen, &loss.error);
        }
        self.pause = None;
        if lost.answered.is_some_and(|since| since.elapsed() >= STEADY) {
            self.backoff.reset();
        } else {
            self.pause = Some(Box::pin(sleep(self.backoff.next_wait())));
        }
    }

    /// Passes on what Envoy asks; fails when that is no request.
    fn request(&mut self, frame: Frame) -> Result<(), Status> {
        let request = frame
            .request(self.protocol)
            .map_err(|error| Status::invalid_argument(format!("no discovery request: {error}")))?;
        if let Some(current) = self.current.as_mut().filter(|current| current.knows(&request)) {
            let changes = current.settle(&request);
            match self.nacks.judge(&request) {
                Some(Verdict::Refused(message)) => self.context.report.refused(&request.type_url, message),
                Some(Verdict::Accepted) => {
                    if let Some(changes) = changes {
                        self.session.accepted(&request.type_url, changes);
                    }
                    self.context.report.accepted(&request.type_url);
                }
                None => {}
            }
        }
        let news = self.session.note(&request);
        if self.session.is_overfull() {
            return Err(self.overfull());
        }
        let probe = self.context.inputs.probe.borrow().clone();
        for upstream in self.current.iter_mut().chain(self.next.asked_mut()) {
            upstream.tell(&frame, &request, news, &self.session, &probe);
        }
        Ok(())
    }

    /// Passes on what istiod answered: the name table is the agent's, all else Envoy's.
    ///
    /// istiod sends the types that were asked for and no other, and but for the name table it was Envoy who asked.
    /// So a type that the agent has never heard of goes to Envoy as well: it is Envoy's to accept or refuse.
    fn response(&mut self, frame: Frame, room: mpsc::Permit<'_, Result<Frame, Status>>) {
        let Some(current) = self.current.as_mut() else { return };
        let read = frame.response().and_then(|head| {
            let changes = match self.protocol {
                XdsProtocol::Delta if head.type_url != NAME_TABLE => Some(frame.changes()?),
                _ => None,
            };
            Ok((head, changes))
        });
        let (head, changes) = match read {
            Ok(read) => read,
            Err(error) => {
                let error = Error::new(error).context(format!(
                    "istiod at {} sent what is no discovery response",
                    current.address
                ));
                return self.lose(Loss { error, silent: false });
            }
        };
        if head.type_url == NAME_TABLE {
            let refused = self.context.take_names(self.protocol, &frame).err();
            return current.answer_names(head.version, &head.nonce, refused);
        }
        if let Some(changes) = &changes {
            self.session.sent(&head.type_url, changes);
        }
        current.passed(head.type_url, head.nonce, changes);
        let is_overfull = current.is_overfull() || self.session.is_overfull();
        room.send(if is_overfull { Err(self.overfull()) } else { Ok(frame) });
    }

    /// Ends Envoy's stream: on the next one it says anew what it has.
    fn overfull(&self) -> Status {
        self.context.options.refusals.count("xDS streams of too many names", "");
        Status::resource_exhausted("more resources than any mesh has")
    }
}

impl Next<'_> {
    fn chosen(&self) -> Option<&str> {
        match self {
            Self::Idle => None,
            Self::Connecting { chosen, .. } => Some(chosen),
            Self::Asking(upstream) => Some(&upstream.chosen),
        }
    }

    fn asked(&self) -> Option<&Upstream> {
        match self {
            Self::Asking(upstream) => Some(upstream),
            _ => None,
        }
    }

    fn asked_mut(&mut self) -> Option<&mut Upstream> {
        match self {
            Self::Asking(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// Loses nothing when it is dropped.
    async fn step(&mut self) -> Step {
        match self {
            Self::Idle => pending().await,
            Self::Connecting { connecting, due, .. } => match connecting.await {
                Ok(connected) => Step::Connected(Box::new(connected), *due),
                Err(error) => Step::Failed(error),
            },
            Self::Asking(upstream) => match upstream.next().await {
                Ok(frame) => Step::Answered(frame),
                Err(loss) => Step::Failed(loss.error),
            },
        }
    }
}

/// Envoy's next request, once every istiod that is to hear of it has room.
async fn ask(from_envoy: &mut Streaming<Frame>, gates: [Option<Gate>; 2]) -> Result<Option<Frame>, Status> {
    for gate in gates.into_iter().flatten() {
        gate.opened().await;
    }
    from_envoy.message().await
}

/// istiod's next response, once Envoy has room for it. Reading it never waits for a request to be sent: istiod
/// writes and reads in one loop, and both sides would stand still.
async fn receive<'a>(
    current: Option<&mut Upstream>,
    to_envoy: &'a ToEnvoy,
) -> (Result<Frame, Loss>, mpsc::Permit<'a, Result<Frame, Status>>) {
    let (Some(current), Ok(room)) = (current, to_envoy.reserve().await) else {
        // Envoy's going is noticed elsewhere.
        return pending().await;
    };
    (current.next().await, room)
}

async fn wait(pause: &mut Option<Pin<Box<Sleep>>>) {
    match pause {
        Some(sleep) => sleep.await,
        None => pending().await,
    }
}
