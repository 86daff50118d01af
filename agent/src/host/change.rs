//! Reversible edits of the machine.
//!
//! An edit is found again by a mark it leaves on the host (a BEGIN/END block, a table or chain name, a label),
//! never by a journal of ours: so `revert` works after a crash, after an upgrade and without a state directory.

use std::fmt::Debug;

use anyhow::{Context, Result};

use super::Host;

/// One reversible edit of the VM. All of it blocks.
pub trait HostChange: Debug + Send + Sync {
    /// What an operator would call it.
    fn name(&self) -> &'static str;

    /// What is missing, as a diff; `None` when the host is already as wanted. Never writes.
    fn plan(&self, host: &Host) -> Result<Option<String>>;

    /// Makes it so, whole or not at all. Idempotent.
    fn apply(&self, host: &Host) -> Result<()>;

    /// Removes every trace, found by our mark, with no memory of `apply`.
    fn revert(&self, host: &Host) -> Result<()>;
}

/// Applies what is missing, in order. On failure reverts what this call applied, the failing one included,
/// newest first, and goes on past further failures.
pub fn apply_all(host: &Host, changes: &[Box<dyn HostChange>]) -> Result<()> {
    let mut missing = Vec::new();
    for change in changes {
        if change
            .plan(host)
            .with_context(|| format!("failed to plan {}", change.name()))?
            .is_some()
        {
            missing.push(change);
        }
    }
    for (index, change) in missing.iter().enumerate() {
        if let Err(error) = change.apply(host) {
            for done in missing.iter().take(index + 1).rev() {
                if let Err(error) = done.revert(host) {
                    tracing::error!(change = done.name(), "failed to revert: {error:#}");
                }
            }
            return Err(error.context(format!("failed to apply {}", change.name())));
        }
    }
    Ok(())
}

/// Reverts all, newest first; every one is tried, all failures are told.
pub fn revert_all(host: &Host, changes: &[Box<dyn HostChange>]) -> Result<()> {
    let failures: Vec<String> = changes
        .iter()
        .rev()
        .filter_map(|change| {
            change
                .revert(host)
                .err()
                .map(|error| format!("{}: {error:#}", change.name()))
        })
        .collect();
    if failures.is_empty() {
        return Ok(());
    }
    anyhow::bail!("failed to revert {}", failures.join("; "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::System;

    const FILE: &str = "/etc/hosts";

    /// Appends a line, or appends it and then fails.
    #[derive(Debug)]
    struct Append {
        line: &'static str,
        fails: bool,
    }

    impl HostChange for Append {
        fn name(&self) -> &'static str {
            "append"
        }

        fn plan(&self, host: &Host) -> Result<Option<String>> {
            let there = host.text(Path::new(FILE)).contains(self.line);
            Ok((!there).then(|| format!("+{}", self.line)))
        }

        fn apply(&self, host: &Host) -> Result<()> {
            let text = host.text(Path::new(FILE)) + self.line;
            host.rewrite(Path::new(FILE), &text)?;
            anyhow::ensure!(!self.fails, "disk on fire");
            Ok(())
        }

        fn revert(&self, host: &Host) -> Result<()> {
            let text = host.text(Path::new(FILE)).replace(self.line, "");
            Ok(host.rewrite(Path::new(FILE), &text)?)
        }
    }

    fn append(line: &'static str, fails: bool) -> Box<dyn HostChange> {
        Box::new(Append { line, fails })
    }

    #[test]
    fn a_failure_undoes_the_failing_change_too() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let host = Host::new(root.path(), System);
        host.write(Path::new(FILE), "localhost\n", 0o644, None).unwrap();
        let error = apply_all(&host, &[append("# a\n", false), append("# b\n", true)]).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed to apply append: disk on fire");
        assert_eq!(host.text(Path::new(FILE)), "localhost\n");
    }

    #[test]
    fn a_second_apply_changes_nothing_and_revert_needs_no_memory() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let host = Host::new(root.path(), System);
        host.write(Path::new(FILE), "localhost\n", 0o644, None).unwrap();
        for _ in 0..2 {
            apply_all(&host, &[append("# a\n", false)]).unwrap();
            assert_eq!(host.text(Path::new(FILE)), "localhost\n# a\n");
        }
        revert_all(&host, &[append("# a\n", false)]).unwrap();
        assert_eq!(host.text(Path::new(FILE)), "localhost\n");
    }
}
