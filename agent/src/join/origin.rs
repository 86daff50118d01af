//! Origins of the parts of a bundle, and errors in one of them: all for messages.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// A file, a URL or some objects of a cluster: the place to which a person goes to correct a part of a bundle.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Origin {
    name: String,
    /// The line of each key, counted from 1; of a list, the line of each index. Empty where there is no text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    lines: BTreeMap<String, usize>,
}

impl Origin {
    /// The whole of what `name` calls.
    pub(super) fn new(name: impl fmt::Display) -> Self {
        Self {
            name: name.to_string(),
            lines: BTreeMap::new(),
        }
    }

    /// This place, with the lines of its keys.
    pub(super) fn with_lines(self, lines: BTreeMap<String, usize>) -> Self {
        Self { lines, ..self }
    }

    /// The line of `key`, where there is one.
    pub(super) fn line(&self, key: &str) -> Option<usize> {
        self.lines.get(key).copied()
    }

    /// `name:line` for a message about another place.
    pub(super) fn place(&self, line: Option<usize>) -> String {
        match line {
            Some(line) => format!("{self}:{line}"),
            None => self.to_string(),
        }
    }

    /// `error`, said of this place.
    pub(super) fn error(&self, error: ParseError) -> ConfigError {
        ConfigError::about(self.place(error.line), error.problem)
    }

    /// An error about one key, with its line.
    pub(super) fn key_error(&self, key: &str, problem: impl fmt::Display) -> ConfigError {
        self.error(ParseError::at(self.line(key), format!("{key}: {problem}")))
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
    /// Counted from 1; `None` when the whole is wrong.
    pub(super) line: Option<usize>,
    /// `KEY: what is wrong and what to do`.
    pub(super) problem: String,
}

impl ParseError {
    /// An error about the whole text.
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            line: None,
            problem: problem.into(),
        }
    }

    /// An error about one line.
    pub(super) fn at(line: impl Into<Option<usize>>, problem: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            problem: problem.into(),
        }
    }
}
