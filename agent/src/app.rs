//! The composition root: the only module that knows every feature.
//!
//! Start: status, readiness, then the parts in the order of their list (`parts`). Each waits for the one before it, but
//! for three: /etc/hosts is written while the others start, the first certificate comes, and the rules are prepared, while
//! Envoy does. Stop is the reverse, so the first to end are `leave`, which has callers go elsewhere, and `drain`, which
//! empties Envoy of connections while everything they need still works.
//!
//! A stop puts the host back as it was. A failure of a VM that serves does not: like a crash, it leaves
//! Envoy, the rules and the container to the next agent, because a way around the mesh is worse than a gap
//! in its supervision. A failure of a start that found nothing of ours undoes what that start did.

mod ending;
mod parts;
mod readiness;
mod startup_status;
mod timeline;

use std::future::Future;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bounds::Refusals;
use crate::config::Config;
use crate::facts::Membership;
use crate::host::{Host, InheritedSockets, Lock, NetworkLock};
use crate::intercept;
use crate::join::Join;
use crate::part::{Channels, Context, Part, SHORT, Shared, Site, Task};
use crate::release::{COMMIT, VERSION};
use crate::supervise::Supervisor;
use ending::{End, drain_ordered, empty, hasten, is_for_good, no_time_left, once_it_can_leave, told};
pub use ending::{Ended, Stop};
pub use parts::parts;
use startup_status::StartupStatus;

/// Inputs of a run.
#[derive(Debug)]
pub struct Inputs {
    /// The start of the agent.
    pub began: Instant,
    /// The machine and the operator's configuration.
    pub site: Site,
    /// The join source.
    pub join: Join,
    /// Sockets that systemd kept of an earlier agent.
    pub kept: InheritedSockets,
    /// Counts of what was turned away since the start.
    pub refusals: Refusals,
    /// Reason why a configuration was refused since the start.
    pub reload_problem: watch::Sender<Option<String>>,
}

struct App {
    context: Arc<Context>,
    parts: Arc<[Box<dyn Part>]>,
    supervisor: Supervisor,
    began: Instant,
}

/// Joins the mesh and stays until `stop` completes or a part fails. Leaving takes time, in which the VM serves; `haste`
/// completes when it is not to be taken.
pub async fn run(inputs: Inputs, stop: impl Future<Output = Stop>, haste: impl Future<Output = ()>) -> Result<Ended> {
    let Inputs {
        began,
        site,
        join,
        kept,
        refusals,
        reload_problem,
    } = inputs;
    let shared = Shared {
        refusals,
        reload_problem,
        ..Shared::default()
    };
    let read = began.elapsed();
    let _locks = prepare(&site.config, &site.host)?;
    let parts: Arc<[_]> = parts(Some(join.clone())).into();
    let mut supervisor = Supervisor::default();
    let resumed = resumes(&site).await;
    let started = CancellationToken::new();
    // Asked from the first order on: a second signal would else be taken for the first one.
    let haste = Box::pin(haste).shared();
    let mut stop = Box::pin(once_it_can_leave(stop, haste.clone(), resumed, started.clone()));
    let known = tokio::select! {
        biased;
        stop = &mut stop => Err(Ok(stop)),
        known = arrive(&mut supervisor, &site, &join, &parts, shared) => known.map_err(Err),
    };
    let channels = match known {
        Ok(channels) => channels,
        Err(unknown) => {
            supervisor.drain().await;
            return unknown.map(|stop| match stop {
                Stop::Reload(_) => Ended::BeginAgain,
                _ => Ended::Done,
            });
        }
    };
    let context = Context {
        site,
        tokens: join.tokens(),
        sockets: Mutex::new(kept),
        channels,
    };
    let mut app = App {
        context: Arc::new(context),
        parts,
        supervisor,
        began,
    };
    app.passed("configuration", read);
    app.passed("join", began.elapsed().saturating_sub(read));
    let channels = app.context.channels.clone();
    let told = once_it_can_leave(told(&channels), haste.clone(), resumed, started.clone());
    let end = app.live(resumed, &started, either(stop, told)).await;
    app.end(end, haste).await
}

/// Tells whether rules of an earlier agent are in. Where that can't be seen they are taken to be: undoing the start of an agent
/// that took over would open the VM.
async fn resumes(site: &Site) -> bool {
    site.host.blocking(intercept::present).await.unwrap_or_else(|error| {
        tracing::warn!("rules of an earlier agent may be in: {error:#}");
        intercept::is_wanted(site)
    })
}

/// From nothing to the channels of all parts: who this VM is, and where the mesh is.
async fn arrive(
    supervisor: &mut Supervisor,
    site: &Site,
    join: &Join,
    parts: &Arc<[Box<dyn Part>]>,
    shared: Shared,
) -> Result<Channels> {
    let Site { config, host, .. } = site;
    let startup_status = StartupStatus::open(
        supervisor,
        host,
        &config.paths,
        join.source(),
        Arc::clone(parts),
        shared,
    )
    .await
    .context("failed to start")?;
    let membership = startup_status.membership(join).await?;
    tracing::info!(
        version = VERSION,
        commit = COMMIT,
        node = membership.node_name,
        spiffe_id = %membership.spiffe_id,
        control_plane = membership.discovery_address,
        addresses = ?membership.instance_ips,
        "joining the mesh",
    );
    Ok(startup_status.joined(|shared| Channels::new(membership, config, shared)))
}

/// Directories, and the locks that keep a second agent out: of them, and of this machine's rules and ports.
fn prepare(config: &Config, host: &Host) -> Result<(Lock, NetworkLock)> {
    let paths = &config.paths;
    // Envoy passes through both, to its program and to its own directory and sockets, and can't list them.
    host.make_directory(&paths.state, 0o711, None)
        .context("failed to make paths.state")?;
    host.make_directory(&paths.run, 0o711, None)
        .context("failed to make paths.run")?;
    let locks = host
        .lock(&paths.lock())
        .and_then(|lock| Ok((lock, host.lock_network()?)));
    locks.map_err(|error| {
        let is_held = error.kind() == ErrorKind::WouldBlock;
        anyhow::Error::new(error).context(match is_held {
            true => "failed to start: there is an agent already",
            false => "failed to start: the lock that keeps out a second agent can't be had",
        })
    })
}

impl App {
    async fn end(mut self, end: End, haste: impl Future<Output = ()>) -> Result<Ended> {
        match end {
            End::HandOver(result) => result.map(|()| Ended::Done),
            End::BeginAgain(next) => {
                self.drop_what_is_gone(next.as_deref()).await;
                Ok(Ended::BeginAgain)
            }
            End::Leave(result) => {
                let channels = self.context.channels.clone();
                self.leave(haste).await;
                match (is_for_good(&channels), result) {
                    (false, result) => result.map(|()| Ended::Done),
                    (true, Ok(())) => Ok(Ended::ForGood),
                    // With an error systemd would start another agent, which would join.
                    (true, Err(error)) => {
                        tracing::error!("{error:#}");
                        Ok(Ended::ForGood)
                    }
                }
            }
        }
    }

    async fn leave(self, haste: impl Future<Output = ()>) {
        let channels = self.context.channels.clone();
        let drain = std::pin::pin!(self.supervisor.drain());
        hasten(drain, no_time_left(haste, &channels), &channels.hastened).await;
    }

    /// Starts all and waits for the end.
    async fn live(&mut self, resumed: bool, started: &CancellationToken, stop: impl Future<Output = Stop>) -> End {
        let mut outgrown = std::pin::pin!(outgrown(self.context.channels.membership.subscribe()));
        let begin_again = || {
            tracing::info!(
                "the new membership needs other parts: beginning again, with Envoy, the rules and the container left as they are"
            );
            End::BeginAgain(None)
        };
        let channels = self.context.channels.clone();
        let mut stop = std::pin::pin!(stop);
        let start = tokio::select! {
            biased;
            stop = &mut stop => return stop.into(),
            () = &mut outgrown => return begin_again(),
            start = self.start() => start,
        };
        started.cancel();
        if let Err(error) = start {
            return if resumed {
                let left = "failed to start; the host is left as the earlier agent left it";
                End::HandOver(Err(error.context(left)))
            } else {
                End::Leave(Err(error.context("failed to start; what the start changed is undone")))
            };
        }
        tracing::info!("joined the mesh");
        tokio::select! {
            biased;
            stop = &mut stop => stop.into(),
            error = self.supervisor.failed() => {
                End::HandOver(Err(error.context("a part failed; Envoy and the rules are left to the next agent")))
            }
            () = &mut outgrown => begin_again(),
            () = drain_ordered(&channels) => empty(&mut self.supervisor, stop).await,
        }
    }

    /// Ends the parts whose work the next agent would not know of.
    async fn drop_what_is_gone(&mut self, next: Option<&Config>) {
        let Some(next) = next else { return };
        for part in self.parts.iter().rev() {
            if part.is_gone(&self.context.site.config, next) {
                self.supervisor.drain_one(part.name()).await;
            } else {
                part.end_pieces(&self.context, next).await;
            }
        }
    }

    async fn start(&mut self) -> Result<()> {
        let (context, parts) = (Arc::clone(&self.context), Arc::clone(&self.parts));
        let began = self.began;
        let readiness = Task::new(SHORT, move |scope| readiness::run(scope, context, parts, began));
        readiness.start("readiness", &mut self.supervisor).await?;
        for part in self.parts.iter() {
            if let Some(task) = part.task(&self.context) {
                let began = Instant::now();
                task.start(part.name(), &mut self.supervisor).await?;
                self.passed(part.name(), began.elapsed());
            }
        }
        // Those that nobody waited for.
        self.supervisor.all_ready().await
    }

    fn passed(&self, phase: &'static str, took: Duration) {
        let startup = &self.context.channels.startup;
        startup.send_modify(|startup| startup.phases.push((phase, took)));
    }
}

/// The first of two orders.
async fn either(one: impl Future<Output = Stop>, other: impl Future<Output = Stop>) -> Stop {
    tokio::select! {
        biased;
        stop = one => stop,
        stop = other => stop,
    }
}

/// Completes when the membership wants other parts than that of this moment, on which only a start decides; the others
/// follow it by themselves.
fn outgrown(mut membership: watch::Receiver<Arc<Membership>>) -> impl Future<Output = ()> {
    let first = Arc::clone(&membership.borrow());
    async move {
        let other = |now: &Arc<Membership>| now.dns_capture != first.dns_capture || now.probe != first.probe;
        if membership.wait_for(other).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::control_plane::fixtures::membership;

    #[tokio::test(start_paused = true)]
    async fn membership_that_needs_other_parts_begins_again_and_no_other() {
        let captures = |dns_capture| {
            Arc::new(Membership {
                dns_capture,
                ..membership()
            })
        };
        let publish = watch::Sender::new(captures(true));
        let mut before = std::pin::pin!(outgrown(publish.subscribe()));
        let mut outgrown = std::pin::pin!(outgrown(publish.subscribe()));
        let moved = Membership {
            discovery_address: "elsewhere:15012".to_owned(),
            ..Membership::clone(&captures(true))
        };
        let mut soon = async || timeout(Duration::from_secs(1), &mut outgrown).await.is_ok();
        publish.send_replace(Arc::new(moved));
        assert!(!soon().await);
        publish.send_replace(captures(false));
        assert!(soon().await);
        // What changes while the parts start, before anybody waits for it, counts too.
        before.as_mut().await;
    }
}
