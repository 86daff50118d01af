//! Fuzz target: files of variables.

use super::env_file;

/// Reads a file of variables.
pub(crate) fn env_file(text: &str) {
    let Ok(variables) = env_file::parse(text) else { return };
    // What is read is written and read again.
    let lines: Vec<_> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(env_file::parse(&lines.join("\n")), Ok(variables));
}
