//! What each signal asks of the running agent.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::app::Stop;
use crate::cli::configuration::{fits, prepare};
use crate::config::{Config, PathsConfig};
use crate::facts::date;
use crate::host::Host;

pub(super) struct Signals {
    hup: Signal,
    int: Signal,
    term: Signal,
    usr1: Signal,
}

impl Signals {
    /// From here on no signal ends the process by itself.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
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

/// Completes with the second signal that asks the agent to leave. It is first asked when the agent leaves; the signal that
/// it leaves for is the first one.
pub(super) fn repeated() -> io::Result<impl Future<Output = ()>> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    Ok(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        }
    })
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
