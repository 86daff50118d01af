//! Origins of the parts of a bundle, and errors in one of them: all for messages.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Place};

/// A place in a text, counted from 1. The line alone is what a cache of an earlier agent has.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Position {
    Line(usize),
    /// Line, and column in characters.
    Column(usize, usize),
}

impl Position {
    pub(super) fn line(self) -> usize {
        match self {
            Self::Line(line) | Self::Column(line, _) => line,
        }
    }

    fn column(self) -> Option<usize> {
        match self {
            Self::Line(_) => None,
            Self::Column(_, column) => Some(column),
        }
    }
}

impl From<usize> for Position {
    fn from(line: usize) -> Self {
        Self::Line(line)
    }
}

/// A file, a URL or some objects of a cluster: the place to which a person goes to correct a part of a bundle.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Origin {
    name: String,
    /// The place of each key; of a list, that of each index. Empty where there is no text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lines: BTreeMap<String, Position>,
    /// The object that a key is from, and the field in it, where a part is made of several objects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    objects: BTreeMap<String, String>,
}

impl Origin {
    /// The whole of what `name` calls.
    pub(super) fn new(name: impl fmt::Display) -> Self {
        Self {
            name: name.to_string(),
            ..Self::default()
        }
    }

    /// The same place, with those of its keys.
    pub(super) fn with_lines(self, lines: BTreeMap<String, Position>) -> Self {
        Self { lines, ..self }
    }

    /// The same place, with the objects that its keys are from.
    pub(super) fn with_objects(self, objects: BTreeMap<String, String>) -> Self {
        Self { objects, ..self }
    }

    /// True where `key` is known to be written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.contains_key(key) || self.objects.contains_key(key)
    }

    /// The place of `key`; the whole where it has none of its own.
    pub(super) fn place(&self, key: &str) -> Place {
        match self.objects.get(key) {
            Some(object) => object.as_str().into(),
            None => self.at(self.lines.get(key).copied()),
        }
    }

    fn at(&self, position: Option<Position>) -> Place {
        Place {
            name: self.name.clone(),
            line: position.map(Position::line),
            column: position.and_then(Position::column),
        }
    }

    /// `error`, said of this place.
    pub(super) fn error(&self, error: ParseError) -> ConfigError {
        ConfigError::about(self.at(error.position), error.problem)
    }

    /// An error about one key, with its place.
    pub(super) fn key_error(&self, key: &str, problem: impl fmt::Display) -> ConfigError {
        match self.objects.contains_key(key) {
            // The object's own name for it is a part of the place.
            true => ConfigError::about(self.place(key), problem.to_string()),
            false => ConfigError::about(self.place(key), format!("{key}: {problem}")),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why a text can't be used. Parsers don't know which file they read: its [`Origin`] adds that.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ParseError {
    /// `None` when the whole is wrong.
    pub(super) position: Option<Position>,
    /// `KEY: what is wrong and what to do`.
    pub(super) problem: String,
}

impl ParseError {
    /// An error about the whole text.
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            position: None,
            problem: problem.into(),
        }
    }

    /// An error about one place of the text.
    pub(super) fn at(position: impl Into<Position>, problem: impl Into<String>) -> Self {
        Self {
            position: Some(position.into()),
            problem: problem.into(),
        }
    }

    /// The line, for tests.
    #[cfg(test)]
    pub(super) fn line(&self) -> Option<usize> {
        self.position.map(Position::line)
    }
}
