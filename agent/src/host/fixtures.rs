//! Commands that a test answers in place of a machine.

use std::fmt;

use super::{CommandError, Invocation, Run};

/// Commands that a function answers.
pub(crate) struct Answers<F>(pub(crate) F);

impl<F> fmt::Debug for Answers<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

impl<F: Fn(&Invocation) -> Result<String, CommandError> + Send + Sync> Run for Answers<F> {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        self.0(call)
    }
}

/// The answer of a machine on which the program is not installed.
#[cfg(test)]
pub(crate) fn not_installed(call: &Invocation) -> Result<String, CommandError> {
    Err(CommandError::NotFound {
        call: Box::new(call.clone()),
    })
}

/// The answer of a program that fails with these words.
#[cfg(test)]
pub(crate) fn failed(call: &Invocation, stderr: &str) -> Result<String, CommandError> {
    Err(CommandError::Failed {
        call: Box::new(call.clone()),
        status: "exit status: 1".to_owned(),
        stderr: stderr.to_owned(),
    })
}
