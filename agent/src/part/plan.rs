//! The work of a start, told before it is done.

use anyhow::Result;
use serde::Serialize;

use crate::host::Host;
use crate::host::change::HostChange;

/// The work of a start, as one part or all of them see it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Differences between this host and one on which the agent runs.
    pub changes: Vec<Change>,
    /// The same in a few words each.
    pub effects: Vec<(Effect, String)>,
    /// Things that no start touches, though one might fear for them.
    pub untouched: Vec<String>,
    /// Things that could not be looked at, each with the reason.
    pub unseen: Vec<String>,
}

/// Kind of an effect on the host, in the order of a summary's lines.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A program is started.
    Starts,
    /// Traffic is sent to Envoy or to the agent.
    Captures,
    /// Traffic goes on as it does today.
    LeavesAlone,
    /// A file is written.
    Writes,
    /// Something is ended or taken away.
    Removes,
}

impl Effect {
    /// All of them, in their order.
    pub const ALL: [Self; 5] = [
        Self::Starts,
        Self::Captures,
        Self::LeavesAlone,
        Self::Writes,
        Self::Removes,
    ];
}

/// A difference that a start would make on the host.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Change {
    /// The thing that would be changed.
    pub name: &'static str,
    /// The difference, as a diff or in words.
    pub diff: String,
    /// More of the difference, too long for whoever doesn't ask for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<Detail>,
}

/// The long part of a difference.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Detail {
    /// The thing that differs.
    pub of: &'static str,
    /// The difference, as a diff.
    pub diff: String,
}

impl Change {
    /// A difference without a long part.
    pub fn new(name: &'static str, diff: impl Into<String>) -> Self {
        Self {
            name,
            diff: diff.into(),
            detail: None,
        }
    }

    /// The difference that one edit of the host would make; `None`: no difference.
    ///
    /// # Errors
    /// When the host can't be asked.
    pub fn of(edit: &dyn HostChange, host: &Host) -> Result<Option<Self>> {
        let name = edit.name();
        Ok(edit.plan(host)?.map(|diff| Self::new(name, diff)))
    }
}

impl Plan {
    /// A plan of one difference.
    pub fn of(change: Change) -> Self {
        Self {
            changes: vec![change],
            ..Self::default()
        }
    }

    /// The same plan, with an effect in words.
    #[must_use]
    pub fn effect(mut self, effect: Effect, words: impl Into<String>) -> Self {
        self.effects.push((effect, words.into()));
        self
    }

    /// The same plan, with something that is never touched.
    #[must_use]
    pub fn leaving(mut self, thing: impl Into<String>) -> Self {
        self.untouched.push(thing.into());
        self
    }

    /// Adds what another part sees.
    pub fn extend(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.effects.extend(other.effects);
        self.untouched.extend(other.untouched);
        self.unseen.extend(other.unseen);
    }

    /// The words of one kind of effect.
    pub fn words(&self, kind: Effect) -> Vec<&str> {
        let of_kind = self.effects.iter().filter(|(effect, _)| *effect == kind);
        of_kind.map(|(_, words)| words.as_str()).collect()
    }
}
