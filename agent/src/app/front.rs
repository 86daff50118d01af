//! What systemd, 15020 and `status` are told from the first moment on, also while it isn't known yet who this VM is.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use anyhow::Result;
use tokio::sync::watch;

use super::SHORT;
use super::channels::Channels;
use crate::bounds::Refusals;
use crate::config::PathsConfig;
use crate::facts::{Health, Membership};
use crate::health;
use crate::host::Host;
use crate::join::Join;
use crate::status::{self, Agent, Status};
use crate::supervise::Supervisor;

/// What is told from the first moment on, and by the parts that come after.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub(super) health: watch::Sender<Health>,
    /// Why the membership may be old.
    pub(super) join_problem: watch::Sender<Option<String>>,
    /// What was turned away because a bound was reached.
    pub(super) refusals: Refusals,
}

/// Its tasks serve as long as the agent; `joined` turns them from the wait to the whole.
pub(super) struct Front {
    source: String,
    started: SystemTime,
    shared: Shared,
    joined: Arc<OnceLock<Channels>>,
}

impl Front {
    /// Opens the sockets.
    pub(super) async fn open(
        supervisor: &mut Supervisor,
        host: &Host,
        paths: &PathsConfig,
        source: String,
    ) -> Result<Self> {
        let front = Self {
            source,
            started: SystemTime::now(),
            shared: Shared::default(),
            joined: Arc::default(),
        };
        front.publish(None);
        let health = front.shared.health.subscribe();
        supervisor.spawn("notify", SHORT, |scope| health::notify(scope, health));
        let (host, socket, health) = (host.clone(), paths.status_socket(), front.shared.health.subscribe());
        let source = front.document();
        supervisor.spawn("status", SHORT, |scope| {
            status::serve(scope, host, socket, source, health)
        });
        supervisor.newest_ready().await?;
        Ok(front)
    }

    /// Waits until it is known who this VM is, and says meanwhile what for.
    pub(super) async fn membership(&self, join: &Join) -> Result<Membership> {
        let mut problem = self.shared.join_problem.subscribe();
        let first = join.first(&self.shared.join_problem);
        tokio::pin!(first);
        loop {
            tokio::select! {
                biased;
                membership = &mut first => return membership,
                Ok(()) = problem.changed() => self.publish(problem.borrow_and_update().as_deref()),
            }
        }
    }

    /// The channels of all that follows, which `status` is made of from now on.
    pub(super) fn joined(&self, channels: impl FnOnce(Shared) -> Channels) -> Channels {
        self.joined.get_or_init(|| channels(self.shared.clone())).clone()
    }

    fn publish(&self, problem: Option<&str>) {
        let waiting = format!("waits for {}", self.source);
        let problem = problem.map_or_else(|| waiting.clone(), |problem| format!("{waiting}: {problem}"));
        self.shared.health.send_replace(Health {
            ready: false,
            problems: vec![problem],
        });
    }

    fn document(&self) -> Arc<dyn Fn() -> Status + Send + Sync> {
        let (joined, shared) = (Arc::clone(&self.joined), self.shared.clone());
        let (source, started) = (self.source.clone(), self.started);
        Arc::new(move || match joined.get() {
            Some(channels) => channels.status(started),
            None => Status {
                agent: Agent::Joining {
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    pid: std::process::id(),
                    since: started,
                    source: source.clone(),
                },
                health: shared.health.borrow().clone(),
                refused: shared.refusals.all(),
                ..Status::default()
            },
        })
    }
}
