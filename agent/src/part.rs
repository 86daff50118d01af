//! A part: one of the things that the agent is made of, as all others see it.
//!
//! A feature states in its own folder what its part runs, what `status` shows of it, what of it keeps the VM from
//! serving, and what of it is on the host without an agent. `app::parts` lists the parts once, in the order of their
//! start; `run`, `status`, readiness, `plan` and `revert` all read that list.

mod channels;
mod finding;
mod metric;
mod page;
mod plan;
mod problems;
mod question;
mod section;
mod standby;
mod task;

use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::{BoxFuture, ready};

use crate::config::{Config, ports};
use crate::control_plane::token::TokenSource;
use crate::facts::Membership;
use crate::host::{Host, InheritedSockets, Owner};

pub use channels::{Channels, Shared, WorkloadChannels};
pub use finding::{Finding, Level, Subject};
pub use metric::{Metric, MetricKind, Sample, Value, seconds_until};
pub use page::{Answer, Audience, Page, text, typed};
pub use plan::{Change, Detail, Effect, Plan};
pub use problems::{Code, Problems};
pub use question::{CheckContext, Joined, Member, Question};
pub use section::{Section, State, ago, rounded};
pub use standby::{running_standby, stop_standby};
pub use task::{Changes, SHORT, Task, any_changed, changes_of};

/// The user that Envoy runs as, which what Envoy must be able to open belongs to.
pub const ENVOY_USER: Owner = Owner {
    uid: ports::PROXY_UID,
    gid: ports::PROXY_GID,
};

/// The machine and what the operator wants of it: all that there is without a running agent.
#[derive(Clone, Debug)]
pub struct Site {
    /// The machine.
    pub host: Host,
    /// The operator's configuration; the defaults where a verb goes on without one.
    pub config: Config,
    /// The systemd units that do the agent's work.
    pub units: Units,
}

/// Names of systemd units; what has none is done by the agent's own process.
#[derive(Clone, Debug, Default)]
pub struct Units {
    /// The agent itself, with whose unit the units of commands end.
    pub agent: Option<String>,
    /// Envoy.
    pub envoy: Option<String>,
    /// The standby for DNS; without a unit there is none.
    pub dns: Option<String>,
    /// The standby for the VM's place in the mesh; without a unit there is none.
    pub xds: Option<String>,
    /// The writer of /etc/hosts, which the agent in its unit can't write.
    pub hosts: Option<String>,
}

/// All that a running part is given.
#[derive(Debug)]
pub struct Context {
    /// The machine and the configuration.
    pub site: Site,
    /// Makes tokens for istiod; absent: the membership's file has one.
    pub tokens: Option<Arc<dyn TokenSource>>,
    /// The sockets that systemd kept of an earlier agent; DNS takes them.
    pub sockets: Mutex<InheritedSockets>,
    /// The facts, each with its publisher and its readers.
    pub channels: Channels,
}

/// One part. The defaults are those of a part that only runs.
pub trait Part: Send + Sync {
    /// Name of the task, in logs and errors.
    fn name(&self) -> &'static str;

    /// The task; `None` where the configuration or the membership wants none.
    fn task(&self, _context: &Context) -> Option<Task> {
        None
    }

    /// True where a reload from the configuration `now` to `next` ends this part: the next agent would not know of its
    /// work.
    fn is_gone(&self, _now: &Config, _next: &Config) -> bool {
        false
    }

    /// Ends the pieces of a part that stays which a reload to the configuration `next` has no more, as [`Self::is_gone`] does
    /// the whole.
    fn end_pieces<'a>(&'a self, _context: &'a Context, _next: &'a Config) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    /// The sections of `status`, in the order of their lines.
    fn sections(&self) -> Vec<Box<dyn Section>> {
        Vec::new()
    }

    /// The metrics, in the order of their lines on the page and in the document.
    fn metrics(&self) -> &'static [Metric] {
        &[]
    }

    /// Brings facts up to date that the metrics tell and that nobody follows: what costs something to ask for is asked for
    /// when a page of metrics is made.
    fn refresh<'a>(&'a self, _host: &'a Host, _channels: &'a Channels) -> BoxFuture<'a, ()> {
        Box::pin(ready(()))
    }

    /// The pages on port 15020 beside readiness.
    fn pages(&self) -> Vec<Page> {
        Vec::new()
    }

    /// Streams that yield whenever `problems` may have another answer.
    fn changes(&self, _channels: &Channels) -> Vec<Changes> {
        Vec::new()
    }

    /// The part's problems at `now`.
    fn problems(&self, _context: &Context, _now: SystemTime) -> Problems {
        Problems::default()
    }

    /// The work of a start on this host, and what it never touches. Changes nothing.
    fn plan<'a>(&'a self, _site: &'a Site, _membership: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(ready(Ok(Plan::default())))
    }

    /// The questions of `check`: what would keep the part from its work on this host. None changes anything.
    fn questions(&self, _context: &CheckContext) -> Vec<Question> {
        Vec::new()
    }

    /// Takes the part's traces off a host on which no agent runs.
    fn revert<'a>(&'a self, _site: &'a Site) -> BoxFuture<'a, Result<()>> {
        Box::pin(ready(Ok(())))
    }

    /// The part's traces on the host, each in words, found by their marks and by no memory of `revert`. Changes nothing.
    fn traces<'a>(&'a self, _site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(ready(Ok(Vec::new())))
    }
}
