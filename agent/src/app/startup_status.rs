//! State that systemd, 15020 and `status` are told from the first moment on, also before it is known who this VM is.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::future::{FutureExt, join_all};
use tokio::time::Instant;

use crate::config::PathsConfig;
use crate::facts::{Health, Membership};
use crate::host::Host;
use crate::join::Join;
use crate::metrics;
use crate::part::{Channels, Code, Part, SHORT, Shared};
use crate::release::VERSION;
use crate::status::{self, Agent, Status, StatusPort};
use crate::supervise::Supervisor;
use crate::{envoy, health};

/// Time in which an agent that finds an Envoy is to be ready as the one before was.
const ADOPTION: Duration = Duration::from_secs(5);

/// Since when the agent runs with its configuration, and since when its process does.
#[derive(Clone, Copy)]
struct Started {
    since: SystemTime,
    process: Option<SystemTime>,
}

/// The status that is told from the first moment on. Its tasks serve as long as the agent; `joined` turns them from
/// what the start waits for to the states of all parts.
pub(super) struct StartupStatus {
    source: String,
    started: Started,
    shared: Shared,
    parts: Arc<[Box<dyn Part>]>,
    joined: Arc<OnceLock<Channels>>,
}

impl StartupStatus {
    /// Opens the sockets.
    pub(super) async fn open(
        supervisor: &mut Supervisor,
        host: &Host,
        paths: &PathsConfig,
        source: String,
        parts: Arc<[Box<dyn Part>]>,
        shared: Shared,
    ) -> Result<Self> {
        let startup_status = Self {
            source,
            parts,
            started: Started {
                since: SystemTime::now(),
                process: host.started_at(std::process::id()),
            },
            shared,
            joined: Arc::default(),
        };
        startup_status.publish(None);
        let patient_until = envoy::running(host, paths).map(|_| Instant::now() + ADOPTION);
        let health = startup_status.shared.health.subscribe();
        supervisor.spawn("notify", SHORT, |scope| health::notify(scope, health));
        let told = startup_status.told(host, patient_until);
        let (host, socket) = (host.clone(), paths.status_socket());
        let refusals = startup_status.shared.refusals.clone();
        let source = startup_status.document();
        supervisor.spawn("status", SHORT, |scope| {
            status::serve(scope, host, socket, source, told, refusals)
        });
        supervisor.newest_ready().await?;
        Ok(startup_status)
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
            codes: vec![Code::JoinSource.name().to_owned()],
            remedy: Some(Code::JoinSource.remedy().to_owned()),
        });
    }

    /// State of port 15020.
    fn told(&self, host: &Host, patient_until: Option<Instant>) -> StatusPort {
        let own = self.parts.iter().flat_map(|part| part.pages());
        let metrics = self.parts.iter().map(|part| part.metrics()).collect();
        let (host, parts) = (host.clone(), Arc::clone(&self.parts));
        let refresh = move |channels| refreshed(host.clone(), Arc::clone(&parts), channels).boxed();
        StatusPort {
            health: self.shared.health.subscribe(),
            pages: own.chain(metrics::pages(metrics, Box::new(refresh))).collect(),
            channels: Arc::clone(&self.joined),
            patient_until,
        }
    }

    /// The maker of the document; a section says that nothing is known yet until the channels are there.
    fn document(&self) -> Arc<dyn Fn() -> Status + Send + Sync> {
        let (joined, shared) = (Arc::clone(&self.joined), self.shared.clone());
        let (source, started, parts) = (self.source.clone(), self.started, Arc::clone(&self.parts));
        Arc::new(move || {
            let channels = joined.get();
            let sections = parts.iter().flat_map(|part| part.sections()).map(|section| {
                let state = channels.map_or_else(|| section.unknown(), |channels| section.live(channels));
                (section.key().to_owned(), state)
            });
            Status {
                agent: channels.map_or_else(|| joining(started, &source), |channels| running(started, channels)),
                health: shared.health.borrow().clone(),
                sections: sections.collect(),
                ..Status::default()
            }
        })
    }
}

async fn refreshed(host: Host, parts: Arc<[Box<dyn Part>]>, channels: Channels) {
    join_all(parts.iter().map(|part| part.refresh(&host, &channels))).await;
}

fn joining(started: Started, source: &str) -> Agent {
    Agent::Joining {
        version: VERSION.to_owned(),
        pid: std::process::id(),
        since: started.since,
        process_since: started.process,
        source: source.to_owned(),
    }
}

fn running(started: Started, channels: &Channels) -> Agent {
    let membership = channels.membership();
    Agent::Running {
        version: VERSION.to_owned(),
        pid: std::process::id(),
        since: started.since,
        process_since: started.process,
        node: format!("{}.{}", membership.node_name, membership.spiffe_id.namespace),
        control_plane: membership.discovery_address.clone(),
    }
}

#[cfg(test)]
mod golden;
