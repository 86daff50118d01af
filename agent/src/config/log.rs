//! `[log]`.

use serde::{Deserialize, Serialize};

use super::did_you_mean;

/// Levels of tracing, and none at all.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// `[log]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// A level, or levels by target: `info,istio_vm_agent::xds=debug`.
    pub level: String,
    /// Form of the lines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::default(),
        }
    }
}

/// Form of the log's lines.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// journald fields under systemd, else text.
    #[default]
    Auto,
    /// Fields to journald.
    Journald,
    /// JSON lines on stderr.
    Json,
    /// Text lines on stderr.
    Text,
}

impl LogConfig {
    /// Checks each directive of the level: the library would take a word that is no level for a target, and log
    /// nothing else.
    pub(super) fn check(&self) -> Result<(), String> {
        for directive in self.level.split(',') {
            let (target, level) = directive.rsplit_once('=').unwrap_or(("", directive));
            let is_target = target
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte));
            let is_complete = is_target && target.is_empty() != directive.contains('=');
            if !is_complete || !LEVELS.iter().any(|known| known.eq_ignore_ascii_case(level)) {
                return Err(format!("log.level = {:?}: {}", self.level, problem(directive, level)));
            }
        }
        Ok(())
    }
}

fn problem(directive: &str, level: &str) -> String {
    let meant = match level.to_ascii_lowercase().as_str() {
        "verbose" => " (did you mean \"debug\"?)".to_owned(),
        "critical" | "fatal" | "err" => " (did you mean \"error\"?)".to_owned(),
        "none" => " (did you mean \"off\"?)".to_owned(),
        _ if directive.contains(char::is_whitespace) => {
            let plain: String = directive.split_whitespace().collect();
            format!(" (did you mean {plain:?}?)")
        }
        level => did_you_mean(level, LEVELS),
    };
    let levels = LEVELS.join(", ");
    format!(
        "{directive:?} is no level{meant}: write one of {levels}, for the whole agent or for a part of it, as in \
         \"info,istio_vm_agent::xds=debug\""
    )
}
