//! Signals, and what each asks of the running agent.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::signal::{SigSet, Signal as Number, raise};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::app::Stop;
use crate::cli::configuration::{fits, prepare};
use crate::config::{Config, PathsConfig};
use crate::facts::date;
use crate::host::Host;

/// Time for a signal that has come to get from its handler to whoever waits for it: it lies in a pipe.
const DELIVERY: Duration = Duration::from_millis(10);

/// The runtime of an agent, and the signals that it has heard since [`listen`].
pub(super) struct Heard {
    pub(super) runtime: Runtime,
    pub(super) signals: Signals,
    /// Signals that a second one hastens.
    pub(super) haste: Stops,
    /// Signals that come too late for this agent.
    pub(super) late: Late,
}

/// Listens to signals, and makes the runtime after that: its threads have the mask of the one that makes them, and what they
/// start has theirs. An agent that has begun again has one that blocks all orders, and so would its Envoy.
pub(super) fn listen() -> io::Result<Heard> {
    let first = Builder::new_current_thread().enable_all().build()?;
    let (haste, late, signals) =
        first.block_on(async { io::Result::Ok((Stops::new()?, Late::new()?, Signals::new()?)) })?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    Ok(Heard {
        runtime,
        signals,
        haste,
        late,
    })
}

pub(super) struct Signals {
    hup: Signal,
    int: Signal,
    term: Signal,
    usr1: Signal,
}

impl Signals {
    /// From here on no signal ends the process by itself; those that this program left for itself come now.
    fn new() -> io::Result<Self> {
        let signals = Self {
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            usr1: signal(SignalKind::user_defined1())?,
        };
        orders().thread_unblock()?;
        Ok(signals)
    }

    /// Completes with the first signal that ends the agent's turn; a SIGHUP with a bad configuration doesn't.
    /// `problem` tells why.
    pub(super) async fn stop(
        mut self,
        path: PathBuf,
        paths: PathsConfig,
        problem: watch::Sender<Option<String>>,
    ) -> Stop {
        loop {
            tokio::select! {
                _ = self.term.recv() => tracing::info!("SIGTERM: leaving the mesh"),
                _ = self.int.recv() => tracing::info!("SIGINT: leaving the mesh"),
                _ = self.usr1.recv() => {
                    tracing::info!("SIGUSR1: leaving Envoy and the rules to the next agent");
                    return Stop::HandOver;
                }
                _ = self.hup.recv() => match reloaded(&path, &paths, &problem).await {
                    Some(config) => return Stop::Reload(Box::new(config)),
                    None => continue,
                },
            }
            return Stop::Leave;
        }
    }
}

/// The signals that ask the agent to leave, from the moment on in which it has begun to listen to them.
pub(super) struct Stops {
    term: Signal,
    int: Signal,
}

impl Stops {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn recv(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }

    /// Completes with the second one. It is first asked when the agent leaves; the signal that it leaves for is the first one.
    pub(super) async fn repeated(mut self) {
        self.recv().await;
        self.recv().await;
    }
}

/// The orders to end, from the moment on in which the agent has begun to listen to them.
pub(super) struct Late {
    stops: Stops,
    hand_over: Signal,
}

impl Late {
    fn new() -> io::Result<Self> {
        Ok(Self {
            stops: Stops::new()?,
            hand_over: signal(SignalKind::user_defined1())?,
        })
    }

    async fn recv(&mut self) -> Number {
        tokio::select! {
            biased;
            () = self.stops.recv() => Number::SIGTERM,
            _ = self.hand_over.recv() => Number::SIGUSR1,
        }
    }

    /// Leaves an order that came while the agent begins again to the program that this process becomes: what is pending
    /// outlives exec(2), and so does the mask. A SIGHUP needs no more than the mask, which keeps it from ending that program: it
    /// reads the newest configuration. To be called when the runtime has ended: where one of its threads still looks a name up,
    /// that takes an order of the last moment before exec(2), which is lost.
    pub(super) fn leave_to_the_next(mut self) -> io::Result<()> {
        orders().thread_block()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        match runtime.block_on(async { timeout(DELIVERY, self.recv()).await }) {
            Ok(order) => Ok(raise(order)?),
            Err(_) => Ok(()),
        }
    }
}

/// The signals that ask anything of the agent.
fn orders() -> SigSet {
    let orders = [Number::SIGTERM, Number::SIGINT, Number::SIGUSR1, Number::SIGHUP];
    orders.into_iter().collect()
}

async fn reloaded(path: &Path, paths: &PathsConfig, problem: &watch::Sender<Option<String>>) -> Option<Config> {
    let found = prepare(path, &Host::system()).await;
    match found.and_then(|(found, _)| Ok(fits(found.config, paths)?)) {
        Ok(config) => {
            tracing::info!(config = %path.display(), "SIGHUP: taking up the new configuration");
            Some(config)
        }
        Err(error) => {
            tracing::error!("SIGHUP: the configuration stays as it was: {error:#}");
            let now = date(SystemTime::now());
            problem.send_replace(Some(format!(
                "the configuration was refused at {now}, and the one before it serves: {error:#}"
            )));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current_thread() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// The order that the next program finds when it listens, of one that comes while this one begins again.
    fn left_to_the_next(order: Number) -> Number {
        let runtime = current_thread();
        let (_, late) = runtime.block_on(async { (Signals::new().unwrap(), Late::new().unwrap()) });
        // To this thread, as if there were no other.
        raise(order).unwrap();
        drop(runtime);
        late.leave_to_the_next().unwrap();
        current_thread().block_on(async {
            let mut next = Signals::new().unwrap();
            let found = async {
                tokio::select! {
                    _ = next.term.recv() => Number::SIGTERM,
                    _ = next.usr1.recv() => Number::SIGUSR1,
                }
            };
            timeout(Duration::from_secs(20), found).await.expect("it is lost")
        })
    }

    #[test]
    fn order_that_comes_while_the_agent_begins_again_is_left_to_the_next() {
        for (order, left) in [
            (Number::SIGTERM, Number::SIGTERM),
            (Number::SIGINT, Number::SIGTERM),
            (Number::SIGUSR1, Number::SIGUSR1),
        ] {
            assert_eq!(left_to_the_next(order), left, "{order}");
        }
    }

    #[test]
    fn child_of_an_agent_that_began_again_can_be_told_to_stop() {
        // As the agent before left it.
        orders().thread_block().unwrap();
        let heard = listen().unwrap();
        let mask = heard.runtime.spawn(async { SigSet::thread_get_mask().unwrap() });
        let mask = heard.runtime.block_on(mask).unwrap();
        assert!(orders().iter().all(|order| !mask.contains(order)), "{mask:?}");
    }
}
