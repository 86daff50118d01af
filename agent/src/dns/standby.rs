//! DNS while the agent doesn't answer: a process of its own that has copies of the agent's sockets, and reads from them
//! when nobody else does. So neither a hung agent nor one that is gone for good takes the VM's names along.
//!
//! ```text
//!              the agent lends its sockets                 a query lies there at two looks in a row
//! no sockets ------------------------------> looking on ------------------------------------------> answering
//!                                              ^    ^                                                 |    |
//!                                              |    '------------------ after each TURN --------------'    |
//!                                              '---- a new agent lends its sockets, at any time -----------'
//! ```
//!
//! What it sees is the sockets' own queues, so there is no sign of life that an agent could give while it doesn't serve.
//! A look that is wrong costs nothing: who of both reads a query is all the same.

mod lend;

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::Options;
use super::forward::Upstreams;
use super::resolv_conf::Current;
use super::server::Server;
use super::sockets::Sockets;
use super::table::Table;
use crate::facts::HostState;
use crate::host::{Host, receive_descriptors};
use crate::supervise::Scope;

pub use lend::Lender;
pub(super) use lend::lend;

/// Time between two looks. A query that nobody reads is answered after two, and long before its client gives up (5 s).
const LOOK: Duration = Duration::from_millis(250);
/// Time of answering between two looks.
const TURN: Duration = Duration::from_secs(5);
/// Time after which an agent that isn't there is looked for again.
const ABSENCE: Duration = Duration::from_millis(250);
/// Looks in a row without a query left lying, after which the agent is taken to answer again.
const LOOKS_OF_PEACE: u32 = 8;

/// Sockets that the agent has lent, and the namespace whose short names its clients use.
#[derive(Clone, Debug)]
struct Lent {
    namespace: String,
    sockets: Arc<[OwnedFd]>,
}

/// Has systemd start the standby, which is a unit of its own.
pub(super) async fn start(host: Host, unit: String) {
    if let Err(error) = host.blocking(move |host| Ok(host.start_unit(&unit)?)).await {
        tracing::warn!("nobody answers DNS while the agent doesn't: {error:#}");
    }
}

/// Answers in the agent's place whenever that leaves queries lying, until the drain. `lender`: the agent's socket by which
/// it lends its own; `names`: the name table that it wrote down last.
///
/// # Errors
/// None: an agent that isn't there may come.
pub async fn stand_by(scope: Scope, options: Options, lender: PathBuf, names: PathBuf) -> Result<()> {
    let (publish, lent) = watch::channel(None);
    scope.spawn_loop(borrow(lender, publish));
    scope.ready();
    tokio::select! {
        () = scope.draining() => Ok(()),
        () = look_on(&scope, options, &names, lent) => Ok(()),
    }
}

/// Takes the sockets of each agent that comes. Those of one that is gone are kept: queries come in on them.
async fn borrow(lender: PathBuf, publish: watch::Sender<Option<Lent>>) -> Infallible {
    loop {
        if let Ok(mut stream) = UnixStream::connect(&lender).await {
            match receive_descriptors(&stream).await {
                Ok((namespace, sockets)) => {
                    tracing::info!(sockets = sockets.len(), "standing by for the agent's DNS");
                    publish.send_replace(Some(Lent {
                        namespace: String::from_utf8_lossy(&namespace).into_owned(),
                        sockets: sockets.into(),
                    }));
                    // The agent says no more, so this is its end.
                    let _ = stream.read(&mut [0]).await;
                }
                Err(error) => tracing::warn!("failed to borrow the agent's DNS sockets: {error}"),
            }
        }
        sleep(ABSENCE).await;
    }
}

async fn look_on(scope: &Scope, options: Options, names: &Path, mut lent: watch::Receiver<Option<Lent>>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut substitute = None;
    let mut outlook = Outlook::default();
    loop {
        tick.tick().await;
        if lent.has_changed().unwrap_or_default() {
            let newest = lent.borrow_and_update().clone();
            substitute = newest.map(|lent| Substitute::new(&options, lent));
        }
        let Some(substitute) = &substitute else { continue };
        if outlook.is_left_lying(substitute.readable())
            && let Err(error) = substitute.answer(scope, &options.host, names).await
        {
            tracing::warn!("failed to answer DNS in the agent's place: {error:#}");
        }
    }
}

/// State of the sockets, as the looks at them have shown it.
#[derive(Debug, Default)]
struct Outlook {
    /// True for each socket that had a query at the last look.
    waiting: Vec<bool>,
    /// Looks since queries were left lying; `None` when that has been told to be over.
    peace: Option<u32>,
}

impl Outlook {
    /// Tells whether a socket that had a query at the last look has one now.
    fn is_left_lying(&mut self, readable: Vec<bool>) -> bool {
        let left = self.waiting.iter().zip(&readable).any(|(before, now)| *before && *now);
        // After a turn of answering, what lies there is new.
        self.waiting = if left { Vec::new() } else { readable };
        match (left, &mut self.peace) {
            (true, Some(looks)) => *looks = 0,
            (true, peace) => {
                *peace = Some(0);
                tracing::warn!("the agent leaves DNS queries lying: answering them in its place");
            }
            (false, Some(looks)) if *looks == LOOKS_OF_PEACE => {
                self.peace = None;
                tracing::info!("no DNS query is left lying any more");
            }
            (false, Some(looks)) => *looks += 1,
            (false, None) => {}
        }
        left
    }
}

/// The server in the agent's place.
#[derive(Debug)]
struct Substitute {
    lent: Lent,
    server: Server,
    publish: watch::Sender<Arc<Table>>,
    machine: watch::Sender<HostState>,
}

impl Substitute {
    fn new(options: &Options, lent: Lent) -> Self {
        let (publish, table) = watch::channel(Arc::default());
        let (machine, known) = watch::channel(HostState::default());
        let (host, port) = (options.host.clone(), options.upstream_port);
        let current = Current::new(host, options.resolv_conf.clone(), &options.listen, port);
        let upstreams = Upstreams::new(current, port, options.query_timeout);
        let (refusals, counts) = (options.refusals.clone(), options.counts.clone());
        Self {
            lent,
            server: Server::new(table, upstreams, known, refusals, counts),
            publish,
            machine,
        }
    }

    /// Tells of each socket whether something lies there to be read.
    fn readable(&self) -> Vec<bool> {
        let sockets = self.lent.sockets.iter();
        let mut polled: Vec<PollFd<'_>> = sockets.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)).collect();
        // What failed is looked at again.
        let _ = poll(&mut polled, PollTimeout::ZERO);
        polled.iter().map(|it| it.any() == Some(true)).collect()
    }

    /// Answers for a turn. What is asked of the VM's own servers meanwhile is answered after it, too.
    async fn answer(&self, scope: &Scope, host: &Host, names: &Path) -> Result<()> {
        let (path, namespace) = (names.to_owned(), self.lent.namespace.clone());
        // On a thread of its own: those who were asked in the turn before may be answering meanwhile.
        let read = host.blocking(move |host| Ok(host.name_table(&path)?.map(|names| Table::new(&names, &namespace))));
        match read.await {
            Ok(Some(table)) => {
                self.publish.send_replace(Arc::new(table));
            }
            Ok(None) => {}
            // Those of the turn before count, and all others' names are answered.
            Err(error) => tracing::warn!("{}: {error:#}", names.display()),
        }
        match host.blocking(|host| Ok(host.bridges()?)).await {
            Ok(bridges) => self.machine.send_modify(|machine| machine.bridges = bridges),
            Err(error) => tracing::warn!("containers get no names: {error:#}"),
        }
        let copies: io::Result<Vec<OwnedFd>> = self.lent.sockets.iter().map(OwnedFd::try_clone).collect();
        let sockets = Sockets::lent(copies?)?;
        let readers = self.server.readers(scope, sockets);
        // It is over when the time is.
        let _ = timeout(TURN, join_all(readers)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::net::UnixListener;
    use tokio::time::advance;

    use super::*;
    use crate::host::send_descriptors;

    #[tokio::test(start_paused = true)]
    async fn sockets_are_borrowed_of_each_agent_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dns.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (publish, mut lent) = watch::channel(None);
        let (scope, _drain) = Scope::detached();
        scope.spawn_loop(borrow(path, publish));
        let (agent, _) = listener.accept().await.unwrap();
        send_descriptors(&agent, b"shop", &[listener.as_fd()]).await.unwrap();
        let namespace = lent
            .wait_for(Option::is_some)
            .await
            .unwrap()
            .as_ref()
            .map(|lent| lent.namespace.clone());
        assert_eq!(namespace.as_deref(), Some("shop"));
        for _ in 0..3 {
            advance(ABSENCE).await;
            assert!(listener.accept().now_or_never().is_none(), "it has them already");
        }
        drop(agent);
        listener.accept().await.unwrap();
    }

    #[test]
    fn query_that_lies_there_at_two_looks_is_left_lying() {
        let mut outlook = Outlook::default();
        let looks = [
            ([true, false], false),
            ([false, true], false),
            ([false, true], true),
            ([true, true], false),
            ([true, false], true),
            ([false, false], false),
        ];
        for (index, (readable, left)) in looks.into_iter().enumerate() {
            assert_eq!(outlook.is_left_lying(readable.into()), left, "look {index}");
        }
    }
}
