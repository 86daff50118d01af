//! Attempts to have a stream to the selected control plane: one at a time, with a pause after all have failed.

use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Error, Result};
use istio_api::frame::Frame;
use tokio::time::{Instant, Sleep, sleep};

use crate::control_plane::FAILOVER_TIMEOUT;
use crate::supervise::{Backoff, reconnect, spread};
use crate::xds::istiod::Connected;
use crate::xds::peer::Disconnect;
use crate::xds::upstream::Upstream;
use crate::xds::{Context, STEADY_AFTER};

/// Longest time that connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time from the first request to the first response: a throttled istiod takes seconds.
const FIRST_RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that a stream which serves Envoy waits for the first response on its successor.
const MAX_FREEZE: Duration = Duration::from_secs(5);

/// The attempt that is under way, and what came of those before it.
pub(super) struct Attempts<'a> {
    context: &'a Context,
    attempt: Option<Attempt<'a>>,
    /// Number of attempts that failed since one succeeded.
    failures: usize,
    backoff: Backoff,
    /// No attempt begins before its end.
    pause: Option<Pin<Box<Sleep>>>,
}

struct Attempt<'a> {
    /// `host:port`, as it was selected.
    control_plane: String,
    stage: Stage<'a>,
}

enum Stage<'a> {
    Connecting(Pin<Box<dyn Future<Output = Result<Ready>> + Send + 'a>>),
    /// The first requests are out.
    Opened(Box<Upstream>),
}

/// A connection on which a stream may be opened.
pub(in crate::xds) struct Ready {
    pub(in crate::xds) connected: Connected,
    /// Time at which the first response is due.
    pub(in crate::xds) due: Instant,
}

/// The next event of an attempt.
pub(super) enum AttemptEvent {
    /// No attempt is under way, and one may begin.
    PauseOver,
    Connected(Box<Ready>),
    /// The first response came.
    Answered(Frame),
    Failed(Error),
}

impl<'a> Attempts<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self {
            context,
            attempt: None,
            failures: 0,
            backoff: reconnect(),
            pause: None,
        }
    }

    /// The upstream that has not answered yet.
    pub(super) fn upstream(&self) -> Option<&Upstream> {
        match &self.attempt.as_ref()?.stage {
            Stage::Connecting(_) => None,
            Stage::Opened(upstream) => Some(upstream),
        }
    }

    pub(super) fn upstream_mut(&mut self) -> Option<&mut Upstream> {
        match &mut self.attempt.as_mut()?.stage {
            Stage::Connecting(_) => None,
            Stage::Opened(upstream) => Some(upstream),
        }
    }

    /// Begins an attempt when one is due, and gives one up that leads elsewhere by now.
    pub(super) fn reconcile(&mut self, current: Option<&Upstream>) {
        let selected = self.context.options.selector.current();
        // The selector turned while the attempt was under way.
        self.attempt.take_if(|attempt| attempt.control_plane != selected);
        let membership = self.context.inputs.membership.borrow().clone();
        // Neither a new certificate nor a new root is a reason to leave a stream: the next one uses them.
        let host = self.context.inputs.host.borrow().clone();
        let fits = current.is_some_and(|current| current.is_at(&selected, &membership, &host));
        if fits || self.pause.is_some() || self.attempt.is_some() {
            return;
        }
        let connecting = connect(self.context, selected.clone(), current.is_some(), self.failures);
        self.attempt = Some(Attempt {
            control_plane: selected,
            stage: Stage::Connecting(Box::pin(connecting)),
        });
    }

    /// Waits for what comes next. Loses nothing when it is dropped.
    pub(super) async fn next(&mut self) -> AttemptEvent {
        let Some(attempt) = &mut self.attempt else {
            match &mut self.pause {
                Some(pause) => pause.await,
                None => pending().await,
            }
            self.pause = None;
            return AttemptEvent::PauseOver;
        };
        match &mut attempt.stage {
            Stage::Connecting(connecting) => match connecting.await {
                Ok(ready) => AttemptEvent::Connected(Box::new(ready)),
                Err(error) => AttemptEvent::Failed(error),
            },
            Stage::Opened(upstream) => match upstream.next().await {
                Ok(first) => AttemptEvent::Answered(first),
                Err(disconnect) => AttemptEvent::Failed(disconnect.error),
            },
        }
    }

    /// The stream of the attempt that has connected is open.
    pub(super) fn opened(&mut self, upstream: Upstream) {
        if let Some(attempt) = &mut self.attempt {
            attempt.stage = Stage::Opened(Box::new(upstream));
        }
    }

    /// The first response came: the upstream may serve.
    pub(super) fn succeeded(&mut self) -> Option<Upstream> {
        let Attempt { control_plane, stage } = self.attempt.take()?;
        let Stage::Opened(upstream) = stage else { return None };
        self.context.options.selector.mark_reachable(&control_plane);
        self.context.report.connected(upstream.address());
        self.failures = 0;
        Some(*upstream)
    }

    /// True when every control plane has failed since one succeeded.
    pub(super) fn have_all_failed(&self) -> bool {
        self.failures >= self.context.options.selector.count()
    }

    /// Envoy gets what the upstream that has not answered yet was not told of: there is to be another attempt.
    pub(super) fn withdraw(&mut self) {
        if self.upstream().is_some() {
            self.postpone();
        }
    }

    /// There is to be another attempt in a moment.
    pub(super) fn postpone(&mut self) {
        self.attempt = None;
        self.pause_once();
    }

    /// The attempt failed. While nobody serves, the agent tries all control planes at once and then pauses; while one
    /// serves, there is time for a pause after each.
    pub(super) fn failed(&mut self, error: &Error, current: Option<&Upstream>) {
        let selector = &self.context.options.selector;
        if let Some(attempt) = self.attempt.take() {
            selector.mark_unreachable(&attempt.control_plane, error);
        }
        self.failures += 1;
        match current {
            Some(current) => tracing::warn!("stayed with istiod at {}: {error:#}", current.address()),
            None => self.context.report.failed(error),
        }
        if current.is_some() || self.failures.is_multiple_of(selector.count()) {
            self.pause_once();
        }
    }

    /// The upstream that served is lost. Its control plane is tried first again, unless it fell silent; within a second,
    /// unless it was lost soon after it began.
    pub(super) fn lost(&mut self, disconnect: &Disconnect, served: Duration) {
        self.context.report.failed(&disconnect.error);
        if let Some(silent) = &disconnect.silent {
            self.context
                .options
                .selector
                .mark_unreachable(silent, &disconnect.error);
        }
        if served >= STEADY_AFTER {
            self.backoff.reset();
            self.pause = Some(Box::pin(sleep(spread())));
        } else {
            self.pause_once();
        }
    }

    /// Tries again: an attempt that failed, or waits, on the old network may succeed on the new one.
    pub(super) fn network_changed(&mut self) {
        self.backoff.reset();
        self.pause = None;
        self.attempt
            .take_if(|attempt| matches!(attempt.stage, Stage::Connecting(_)));
    }

    fn pause_once(&mut self) {
        self.pause = Some(Box::pin(sleep(self.backoff.next_wait())));
    }
}

/// Connects to the selected control plane, once the VM has a certificate; in haste while there is another to try.
pub(in crate::xds) async fn connect(
    context: &Context,
    selected: String,
    someone_serves: bool,
    failures: usize,
) -> Result<Ready> {
    // The certificate is on its way while Envoy starts, and spares istiod a token.
    context.first_certificate().await;
    let selector = &context.options.selector;
    // With nowhere else to go, or after every one was tried in haste, slow ones are waited for.
    let in_haste = !someone_serves && failures < selector.count() && selector.has_fallback_for(&selected);
    let in_haste_until = in_haste.then(|| Instant::now() + FAILOVER_TIMEOUT);
    let limit = if in_haste { FAILOVER_TIMEOUT } else { CONNECT_TIMEOUT };
    let connected = Connected::to(context, selected, limit).await?;
    let first_response = if someone_serves {
        MAX_FREEZE
    } else {
        FIRST_RESPONSE_TIMEOUT
    };
    let due = in_haste_until.unwrap_or_else(|| Instant::now() + first_response);
    Ok(Ready { connected, due })
}
