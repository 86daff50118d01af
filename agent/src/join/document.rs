//! A text of the bundle and where it came from, and what is wrong in it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::ConfigError;

/// One file of the bundle, or what stands for it when the source is no directory.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Document {
    /// Where it came from; for messages, and for the token, which is read again for every call.
    pub(super) path: PathBuf,
    /// All of it.
    pub(super) text: String,
}

impl fmt::Debug for Document {
    /// Without the text, which may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Document({}, {} bytes)", self.path.display(), self.text.len())
    }
}

impl Document {
    /// `error`, said of this document.
    pub(super) fn error(&self, error: ParseError) -> ConfigError {
        match error.line {
            Some(line) => ConfigError::at(&self.path, line, error.problem),
            None => ConfigError::new(&self.path, error.problem),
        }
    }

    /// `file:line` for a message about another document.
    pub(super) fn place(&self, line: Option<usize>) -> String {
        match line {
            Some(line) => format!("{}:{line}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }
}

/// Why a document can't be used. Parsers don't know which file they read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ParseError {
    /// Counted from 1; `None` when it is about the whole.
    pub(super) line: Option<usize>,
    /// `KEY: what is wrong and what to do`.
    pub(super) problem: String,
}

impl ParseError {
    pub(super) fn new(problem: impl Into<String>) -> Self {
        Self {
            line: None,
            problem: problem.into(),
        }
    }

    pub(super) fn at(line: impl Into<Option<usize>>, problem: impl Into<String>) -> Self {
        Self {
            line: line.into(),
            problem: problem.into(),
        }
    }
}
