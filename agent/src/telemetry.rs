//! Logs: journald fields under systemd, else text or JSON lines on stderr.

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{ConfigError, LogConfig, LogFormat};
use crate::terminal::Lines;

/// Sends this process's log where `config` says. To be called once.
pub fn install(config: &LogConfig) -> Result<(), ConfigError> {
    // Levels by target, as in `info,istio_vm_agent::xds=debug`; `Config::check` has judged them.
    let filter: Targets = config
        .level
        .parse()
        .map_err(|error| ConfigError::key("log.level", format!("{:?}: {error}", config.level)))?;
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match config.format {
        LogFormat::Auto if to_journal() => journald()?,
        // Without colours: then no escape sequence is ours.
        LogFormat::Auto | LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(|| Lines(std::io::stderr()))
            .boxed(),
        LogFormat::Journald => journald()?,
        LogFormat::Json => tracing_subscriber::fmt::layer()
            .json()
            .with_writer(|| Lines(std::io::stderr()))
            .boxed(),
    };
    // A second call in one process (tests) keeps the first subscriber.
    let _ = Registry::default().with(lines.with_filter(filter)).try_init();
    Ok(())
}

fn journald() -> Result<Box<dyn Layer<Registry> + Send + Sync>, ConfigError> {
    tracing_journald::layer()
        .map(|layer| {
            layer
                .with_syslog_identifier("istio-vm-agent".to_owned())
                .with_field_prefix(None)
                .boxed()
        })
        .map_err(|error| ConfigError::key("log.format", format!("failed to reach journald: {error}")))
}

/// Whether stderr is the journal's stream (systemd.exec(5), JOURNAL_STREAM): then fields beat lines.
#[expect(
    clippy::disallowed_methods,
    reason = "systemd's own protocol is an environment variable"
)]
fn to_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    nix::sys::stat::fstat(std::io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
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
