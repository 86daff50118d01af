//! Logs: journald fields under systemd, else text or JSON lines on stderr.

mod journal;
mod queue;

use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use self::journal::{JOURNALD, Journal, Socket};
use self::queue::Queue;
use crate::bounds::Refusals;
use crate::config::{ConfigError, LogConfig, LogFormat};
use crate::terminal::Lines;

/// Time that a reader of the log has at the end of the process.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Log lines of the process.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Sends this process's log where `config` says; what can't be sent without waiting is lost, and counted by `refusals`. To be
/// called once.
pub fn install(config: &LogConfig, refusals: Refusals) -> Result<(), ConfigError> {
    // Levels by target, as in `info,istio_vm_agent::xds=debug`; `Config::check` has judged them.
    let filter: Targets = config
        .level
        .parse()
        .map_err(|error| ConfigError::key("log.level", format!("{:?}: {error}", config.level)))?;
    let failed = |error: io::Error| ConfigError::key("log.format", format!("failed to write the log: {error}"));
    let is_journal = match config.format {
        LogFormat::Auto => to_journal(),
        LogFormat::Journald => true,
        LogFormat::Json | LogFormat::Text => false,
    };
    let queue = if is_journal {
        let journald = Socket::to(PathBuf::from(JOURNALD))
            .map_err(|error| ConfigError::key("log.format", format!("failed to reach journald: {error}")))?;
        Queue::start(journald, refusals, tell)
    } else {
        Queue::start(io::stderr(), refusals, tell)
    }
    .map_err(failed)?;
    let _ = QUEUE.set(queue.clone());
    let lines = move || Lines(queue.clone());
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        _ if is_journal => Journal::new(lines().0).boxed(),
        LogFormat::Json => tracing_subscriber::fmt::layer().json().with_writer(lines).boxed(),
        // Without colours: then no escape sequence is ours.
        _ => tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(lines)
            .boxed(),
    };
    // A second call in one process (tests) keeps the first subscriber.
    let _ = Registry::default().with(layer.with_filter(filter)).try_init();
    Ok(())
}

/// Waits until all that was logged is written, but for no reader that hangs.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(LAST_WORDS);
    }
}

fn tell(lost: u64) {
    tracing::warn!(
        lost,
        "lines of the log were lost: whoever reads it (journald, or stderr's reader) did not for a while"
    );
}

/// True when stderr is the journal's stream (systemd.exec(5), JOURNAL_STREAM): then fields beat lines.
#[expect(
    clippy::disallowed_methods,
    reason = "systemd's own protocol is an environment variable"
)]
fn to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn level_is_of_all_or_of_a_part_as_the_configuration_documents_it() {
        let filter: Targets = "INFO,istio_vm_agent::xds=debug,h2=off".parse().unwrap();
        for (target, level, logged) in [
            ("istio_vm_agent::xds::relay", Level::DEBUG, true),
            ("istio_vm_agent::xds", Level::TRACE, false),
            ("istio_vm_agent::dns", Level::DEBUG, false),
            ("istio_vm_agent::dns", Level::INFO, true),
            ("h2::client", Level::ERROR, false),
        ] {
            assert_eq!(filter.would_enable(target, &level), logged, "{target} {level}");
        }
    }
}
