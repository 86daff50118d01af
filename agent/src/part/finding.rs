//! Findings of `check`.

use serde::Serialize;

/// A thing that `check` looks at. Its code never changes its meaning, and istio-vm-agent(8) has a paragraph for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Subject {
    /// `IVA` and three digits, the first of which is the area's.
    pub code: &'static str,
    /// The thing, for people.
    pub name: &'static str,
}

/// First characters of codes, and the area that has them.
const AREAS: [(&str, &str); 8] = [
    ("IVA1", "host"),
    ("IVA2", "join"),
    ("IVA3", "control-plane"),
    ("IVA4", "identity"),
    ("IVA5", "envoy"),
    ("IVA6", "interception"),
    ("IVA7", "names"),
    ("IVA8", "workload"),
];

impl Subject {
    /// A thing with its code.
    pub const fn new(code: &'static str, name: &'static str) -> Self {
        Self { code, name }
    }

    /// The names of all areas.
    pub fn areas() -> impl Iterator<Item = &'static str> {
        AREAS.into_iter().map(|(_, name)| name)
    }

    /// The name of the area that its code is of.
    pub fn area(self) -> &'static str {
        let area = AREAS.iter().find(|(prefix, _)| self.code.starts_with(prefix));
        area.map_or("", |(_, name)| name)
    }

    /// The finding that it is fine.
    pub fn ok(self, detail: impl Into<String>) -> Finding {
        self.found(Level::Ok, detail.into(), None)
    }

    /// The finding that the VM can join, and that this will hurt; `fix` is what to do.
    pub fn warning(self, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.found(Level::Warning, detail.into(), Some(fix.into()))
    }

    /// The finding that the VM can't join; `fix` is what to do.
    pub fn failed(self, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
        self.found(Level::Failed, detail.into(), Some(fix.into()))
    }

    /// The finding that it was not looked at, and why.
    pub fn skipped(self, why: impl Into<String>) -> Finding {
        self.found(Level::Skipped, why.into(), None)
    }

    fn found(self, level: Level, detail: String, fix: Option<String>) -> Finding {
        let Self { code, name } = self;
        Finding {
            code,
            name,
            level,
            detail,
            fix,
        }
    }
}

/// Result of `check` about one subject.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The code of the thing.
    pub code: &'static str,
    /// The thing.
    pub name: &'static str,
    /// Weight of the finding.
    pub level: Level,
    /// The finding, with its cause.
    pub detail: String,
    /// Remedy; with a warning and a failure alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Finding {
    /// The same finding, as none that keeps the VM from joining.
    pub fn tolerable(mut self) -> Self {
        if self.level == Level::Failed {
            self.level = Level::Warning;
        }
        self
    }

    /// True when the finding is of this thing.
    pub fn is_of(&self, subject: Subject) -> bool {
        self.code == subject.code
    }
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
    /// The thing was not looked at.
    Skipped,
}
