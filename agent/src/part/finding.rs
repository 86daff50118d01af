//! Findings of `check`.

use serde::Serialize;

/// One thing that `check` looked at.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The thing.
    pub name: &'static str,
    /// Weight of the finding.
    pub level: Level,
    /// The finding and, unless it is fine, its remedy.
    pub detail: String,
}

/// Weight of a finding.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The thing is fine.
    Ok,
    /// The VM can join with it.
    Warning,
    /// The VM can't join with it.
    Failed,
}

impl Finding {
    /// A thing that is fine.
    pub fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Ok,
            detail: detail.into(),
        }
    }

    /// A thing that the VM can join with.
    pub fn warning(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Warning,
            detail: detail.into(),
        }
    }

    /// A thing that the VM can't join with.
    pub fn failed(name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            name,
            level: Level::Failed,
            detail: detail.into(),
        }
    }
}
