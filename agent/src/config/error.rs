//! Why a configuration, or what it points to, can't be used: every fault with its place.

use std::path::Path;
use std::{fmt, io};

use serde::Serialize;

use super::Place;
use crate::host::ReadError;

/// One thing that is wrong. Displays as `place: problem`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Fault {
    /// Where it is to be corrected.
    #[serde(flatten)]
    pub place: Place,
    /// The key, what is wrong with it, and what to write.
    pub problem: String,
}

/// The faults of a configuration, at least one; shown as it is to the operator, a line for each.
#[derive(Clone, Debug)]
pub struct ConfigError {
    faults: Vec<Fault>,
    /// True where all that is wrong may be right at the next try.
    is_passing: bool,
}

impl ConfigError {
    /// An error about `path`.
    pub fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self::about(path.display().to_string(), problem)
    }

    /// An error about `place`: a line of a file, or what is no file: a URL, an object of a cluster, an attribute.
    pub fn about(place: impl Into<Place>, problem: impl Into<String>) -> Self {
        Self {
            faults: vec![Fault {
                place: place.into(),
                problem: problem.into(),
            }],
            is_passing: false,
        }
    }

    /// The same error about what the VM lacks for now, such as an address, and nobody has to correct.
    #[must_use]
    pub(crate) fn passing(self) -> Self {
        Self {
            is_passing: true,
            ..self
        }
    }

    /// True where trying again is in vain.
    pub fn is_final(&self) -> bool {
        !self.is_passing
    }

    /// An error about a key that was well-formed and turned out to be of no use.
    pub fn key(key: &str, problem: impl Into<String>) -> Self {
        Self::about(key.to_owned(), problem)
    }

    /// The errors as one; `None` when there are none. What is said twice is said once.
    pub(crate) fn all(errors: impl IntoIterator<Item = Self>) -> Option<Self> {
        let (mut faults, mut is_passing) = (Vec::new(), true);
        for error in errors {
            is_passing &= error.is_passing;
            for fault in error.faults {
                if !faults.contains(&fault) {
                    faults.push(fault);
                }
            }
        }
        (!faults.is_empty()).then_some(Self { faults, is_passing })
    }

    /// The same error, each fault of it as `changed` has it.
    pub(crate) fn map(self, changed: impl FnMut(Fault) -> Fault) -> Self {
        Self {
            faults: self.faults.into_iter().map(changed).collect(),
            ..self
        }
    }

    /// Faults of the configuration, one by one.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl From<Fault> for ConfigError {
    fn from(fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            is_passing: false,
        }
    }
}

impl From<ReadError> for ConfigError {
    fn from(error: ReadError) -> Self {
        let problem = error.problem();
        let remedy = match problem.kind() {
            io::ErrorKind::InvalidData => ": save it as UTF-8",
            io::ErrorKind::InvalidInput | io::ErrorKind::FileTooLarge => ": put the right file there",
            _ => "",
        };
        let place = Place {
            line: error.line(),
            ..error.path().display().to_string().into()
        };
        Self::about(place, format!("failed to read: {problem}{remedy}"))
    }
}
