//! Writes what Envoy accepted into the file: some seconds after the change, and once Envoy is ready with it.

use std::collections::{HashMap, HashSet};
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result};
use futures_util::future::BoxFuture;
use istio_api::frame::Frame;
use istio_api::nds::NAME_TABLE;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::document::{MAX_BYTES, Snapshot, TooLarge};
use super::{SnapshotFile, may_keep};
use crate::facts::{EnvoyState, Membership};
use crate::host::blocking;
use crate::xds::Context;
use crate::xds::session::Session;

/// Time from a change to its write, and so between two writes: a change is rarely alone, and each write is a whole file
/// on the disk. A power cut costs no more than the changes of so long.
const WRITE_AFTER: Duration = Duration::from_secs(5);
/// Time before another try after a write that failed: a full disk is not emptied in seconds.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// Longest time for which the end of a stream waits for a disk.
const LONGEST_WRITE: Duration = Duration::from_secs(2);

/// The recorder of one stream of Envoy's.
pub(in crate::xds) struct Recorder<'a> {
    context: &'a Context,
    envoy: watch::Receiver<EnvoyState>,
    /// Accepted and not written yet.
    accepted: Snapshot,
    /// Bytes of `accepted`.
    size: usize,
    stage: Stage,
    /// True once Envoy was ready on this stream: whatever ends it, it had a whole configuration.
    was_settled: bool,
    /// True once Envoy, or the agent, accepted anything of istiod's.
    has_heard: bool,
    /// True once Envoy has more than is kept, until another istiod sends all anew.
    is_off: bool,
    /// True once resources that Envoy accepted on this stream were let go unwritten.
    has_lost: bool,
}

enum Stage {
    /// All that was accepted is in the file.
    Resting,
    /// A write is due at its end.
    Waiting(Pin<Box<Sleep>>),
    /// The file is being written, or removed.
    Writing(BoxFuture<'static, Result<Write>>),
}

/// The end of a write: what is still to be written.
enum Write {
    Done,
    /// No whole configuration can be made: this is the first resource that Envoy had before this agent and the file lacks.
    NotWhole(Snapshot, Resource),
    Failed(Snapshot, Error),
    TooLarge,
    Removed,
}

/// A resource by its type and name.
struct Resource {
    type_url: String,
    name: String,
}

/// All that a write needs, apart from the stream.
struct Job {
    file: SnapshotFile,
    membership: Arc<Membership>,
    accepted: Snapshot,
    /// Names of the resources that Envoy has, by type.
    held: HashMap<String, HashSet<String>>,
    /// True when all that Envoy has came on this stream.
    is_whole: bool,
}

impl<'a> Recorder<'a> {
    pub(in crate::xds) fn new(context: &'a Context) -> Self {
        Self {
            context,
            envoy: context.inputs.envoy.clone(),
            accepted: Snapshot::default(),
            size: 0,
            stage: Stage::Resting,
            was_settled: false,
            has_heard: false,
            is_off: false,
            has_lost: false,
        }
    }

    /// True when a response of this type is to be held until Envoy has answered it; `held` are the bytes of all that are,
    /// with this one. They are bounded apart from what was accepted, most of which they may replace.
    pub(in crate::xds) fn wants(&mut self, type_url: &str, held: usize) -> bool {
        if held > MAX_BYTES {
            self.give_up(&anyhow::anyhow!("Envoy has yet to answer more than {MAX_BYTES} bytes"));
        }
        !self.is_off && may_keep(type_url)
    }

    /// Envoy, or the agent where it is the name table, accepted this response.
    pub(in crate::xds) fn accepted(&mut self, type_url: &str, response: &Frame) {
        // A response was looked at before it was passed on.
        let Ok(resources) = response.resources() else { return };
        self.has_heard = true;
        if self.is_off {
            return;
        }
        let of_type = self.accepted.0.entry(type_url.to_owned()).or_default();
        for (name, resource) in resources {
            self.size += resource.len();
            self.size -= of_type.insert(name, resource).map_or(0, |before| before.len());
        }
        if self.size > MAX_BYTES {
            self.give_up(&TooLarge.into());
        } else if matches!(self.stage, Stage::Resting) {
            self.stage = Stage::Waiting(Box::pin(sleep(WRITE_AFTER)));
        }
    }

    /// Another istiod sends all anew, which may be less.
    pub(in crate::xds) fn peer_changed(&mut self) {
        // A file that could not be removed is no ground to build on.
        if matches!(self.stage, Stage::Resting) {
            self.is_off = false;
        }
    }

    /// Has what waits for a write be written at once: the agent is on its way out.
    pub(in crate::xds) fn hasten(&mut self) {
        if let Stage::Waiting(pause) = &mut self.stage {
            pause.as_mut().reset(Instant::now());
        }
    }

    /// Writes what waits for a write, where that makes a whole configuration, and sees a write to its end. True when istiod has
    /// spoken, and the file has all that Envoy accepted.
    pub(in crate::xds) async fn finish(&mut self, session: &Session) -> bool {
        self.was_settled |= is_settled(&self.envoy.borrow());
        if matches!(self.stage, Stage::Waiting(_)) && self.was_settled {
            self.write(session);
        }
        if let Stage::Writing(write) = &mut self.stage
            && let Ok(write) = timeout(LONGEST_WRITE, write).await
        {
            self.written(write);
        }
        let is_written = matches!(self.stage, Stage::Resting) && self.accepted.0.is_empty();
        self.has_heard && is_written && !self.is_off
    }

    /// Completes when [`Recorder::write`] is to be called. Loses nothing when it is dropped.
    pub(in crate::xds) async fn due(&mut self) {
        loop {
            match &mut self.stage {
                Stage::Resting => std::future::pending::<()>().await,
                Stage::Waiting(pause) => {
                    if self.envoy.wait_for(is_settled).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    self.was_settled = true;
                    pause.await;
                    if is_settled(&self.envoy.borrow()) {
                        return;
                    }
                }
                Stage::Writing(write) => {
                    let write = write.await;
                    self.written(write);
                }
            }
        }
    }

    /// Begins to write what Envoy has of what it was told.
    pub(in crate::xds) fn write(&mut self, session: &Session) {
        if self.is_off {
            self.stage = self.removing();
            return;
        }
        self.size = 0;
        let job = Job {
            file: self.context.snapshot.clone(),
            membership: self.context.inputs.membership.borrow().clone(),
            accepted: mem::take(&mut self.accepted),
            held: session.held_names(),
            is_whole: !session.is_resumed() && !self.has_lost,
        };
        self.stage = Stage::Writing(Box::pin(blocking(move || Ok(job.run()))));
    }

    fn written(&mut self, write: Result<Write>) {
        self.stage = match write {
            Ok(Write::Removed) => Stage::Resting,
            Ok(_) if self.is_off => self.removing(),
            Ok(Write::TooLarge) => {
                self.stage = Stage::Resting;
                return self.give_up(&TooLarge.into());
            }
            Ok(Write::Done) => {
                self.context.report.snapshot_usable();
                self.after(WRITE_AFTER)
            }
            Ok(Write::NotWhole(accepted, Resource { type_url, name })) => {
                self.take_back(accepted);
                self.failed(&anyhow::anyhow!(
                    "Envoy has had {name} of {type_url} since before this agent started, and istiod has not sent it since; it is \
                     kept once istiod has sent all, or Envoy is restarted"
                ));
                Stage::Resting
            }
            Ok(Write::Failed(accepted, error)) => {
                self.take_back(accepted);
                self.failed(&error);
                self.after(RETRY_AFTER)
            }
            Err(error) => {
                self.failed(&error);
                self.after(RETRY_AFTER)
            }
        };
    }

    fn after(&self, pause: Duration) -> Stage {
        match self.accepted.0.is_empty() && !self.is_off {
            true => Stage::Resting,
            false => Stage::Waiting(Box::pin(sleep(pause))),
        }
    }

    /// Takes resources back that could not be written; newer ones stay.
    fn take_back(&mut self, accepted: Snapshot) {
        for (type_url, resources) in accepted.0 {
            let of_type = self.accepted.0.entry(type_url).or_default();
            for (name, resource) in resources {
                self.size += resource.len();
                let newer = of_type.remove(&name);
                self.size -= newer.as_ref().map_or(0, |_| resource.len());
                of_type.insert(name, newer.unwrap_or(resource));
            }
        }
    }

    fn failed(&self, error: &Error) {
        let problem = format!("Envoy's configuration is not kept for a start without istiod: {error:#}");
        self.context.report.snapshot_problem(problem);
    }

    /// Lets go of everything, and of the file: what it has gets older all the time.
    fn give_up(&mut self, reason: &Error) {
        if mem::replace(&mut self.is_off, true) {
            return;
        }
        self.has_lost = true;
        self.accepted = Snapshot::default();
        self.size = 0;
        self.failed(reason);
        // A write that is under way is awaited.
        if !matches!(self.stage, Stage::Writing(_)) {
            self.stage = self.removing();
        }
    }

    fn removing(&self) -> Stage {
        let file = self.context.snapshot.clone();
        let remove = move || file.remove().map(|()| Write::Removed);
        Stage::Writing(Box::pin(blocking(remove)))
    }
}

/// True when the Envoy whose stream this is has been told all: one that is still being told has less than a start needs.
/// A successor that has failed may fail forever, and is no reason to keep nothing.
fn is_settled(envoy: &EnvoyState) -> bool {
    envoy.is_ready() && envoy.successor().is_none_or(|successor| successor.failed.is_some())
}

impl Job {
    fn run(self) -> Write {
        // What is wrong with it was told at the start of the agent.
        let before = self.file.load(&self.membership).ok().flatten();
        let snapshot = match self.merged(before) {
            Ok(snapshot) => snapshot,
            Err(missing) => return Write::NotWhole(self.accepted, missing),
        };
        match self.file.save(&self.membership, &snapshot) {
            Ok(()) => Write::Done,
            Err(error) if error.is::<TooLarge>() => Write::TooLarge,
            Err(error) => Write::Failed(self.accepted, error),
        }
    }

    /// Envoy's resources: those accepted since over those before; none that it has no more. Fails with a resource
    /// that Envoy has and nobody here.
    fn merged(&self, before: Option<Snapshot>) -> Result<Snapshot, Resource> {
        let is_whole = self.is_whole || before.is_some();
        let mut snapshot = before.unwrap_or_default();
        for (type_url, resources) in &self.accepted.0 {
            let of_type = snapshot.0.entry(type_url.clone()).or_default();
            of_type.extend(resources.iter().map(|(name, bytes)| (name.clone(), bytes.clone())));
        }
        for (type_url, resources) in snapshot.0.iter_mut().filter(|(type_url, _)| *type_url != NAME_TABLE) {
            let held = self.held.get(type_url);
            resources.retain(|name, _| held.is_some_and(|held| held.contains(name)));
        }
        let missing = match is_whole {
            true => None,
            false => self.missing(&snapshot),
        };
        missing.map_or(Ok(snapshot), Err)
    }

    /// The first resource that Envoy has and this snapshot lacks.
    fn missing(&self, snapshot: &Snapshot) -> Option<Resource> {
        let held = self.held.iter().filter(|(type_url, _)| may_keep(type_url));
        let missing = held.flat_map(|(type_url, names)| {
            let kept = snapshot.0.get(type_url);
            let is_missing = move |name: &&String| !kept.is_some_and(|kept| kept.contains_key(*name));
            names.iter().filter(is_missing).map(move |name| (type_url, name))
        });
        // Each try that fails alike tells the same.
        missing.min().map(|(type_url, name)| Resource {
            type_url: type_url.clone(),
            name: name.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
