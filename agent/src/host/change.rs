//! Reversible edits of the machine.
//!
//! An edit is found again by a mark it leaves on the host (a BEGIN/END block, a table or chain name, a label),
//! never by a journal of ours: so `revert` works after a crash, after an upgrade and without a state directory.

mod diff;

use std::fmt::Debug;

use anyhow::{Context, Result};

pub use self::diff::diff;
use super::Host;

/// One reversible edit of the VM. All of it blocks.
pub trait HostChange: Debug + Send + Sync {
    /// The name by which an operator knows the change.
    fn name(&self) -> &'static str;

    /// The missing difference, as a diff; `None` when the host is already as wanted. Never writes.
    fn plan(&self, host: &Host) -> Result<Option<String>>;

    /// Makes it so. What stood before stays until the new is in, also when that fails. Idempotent.
    fn apply(&self, host: &Host) -> Result<()>;

    /// Removes every trace, found by our mark, with no memory of `apply`.
    fn revert(&self, host: &Host) -> Result<()>;

    /// Applies what is missing, and tells whether anything was. What fails half-way is never reverted: what stood before may
    /// still be right, and who asks again goes on from there.
    ///
    /// # Errors
    /// When the host can't be asked, or the change not be applied.
    fn ensure(&self, host: &Host) -> Result<bool> {
        let name = self.name();
        let missing = self.plan(host).with_context(|| format!("failed to plan {name}"))?;
        if missing.is_some() {
            self.apply(host).with_context(|| format!("failed to apply {name}"))?;
        }
        Ok(missing.is_some())
    }
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
            host.rewrite(Path::new(FILE), text.as_bytes())?;
            anyhow::ensure!(!self.fails, "disk on fire");
            Ok(())
        }

        fn revert(&self, host: &Host) -> Result<()> {
            let text = host.text(Path::new(FILE)).replace(self.line, "");
            Ok(host.rewrite(Path::new(FILE), text.as_bytes())?)
        }
    }

    fn append(line: &'static str, fails: bool) -> Append {
        Append { line, fails }
    }

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let host = Host::new(root.path(), System);
        host.write(Path::new(FILE), "localhost\n", 0o644, None).unwrap();
        (root, host)
    }

    #[test]
    fn change_that_fails_half_way_is_told_and_not_undone() {
        let (_root, host) = host();
        let error = append("# b\n", true).ensure(&host).unwrap_err();
        assert_eq!(format!("{error:#}"), "failed to apply append: disk on fire");
        assert_eq!(host.text(Path::new(FILE)), "localhost\n# b\n");
    }

    #[test]
    fn change_is_made_once_and_reverted_without_memory() {
        let (_root, host) = host();
        for changes in [true, false] {
            assert_eq!(append("# a\n", false).ensure(&host).unwrap(), changes);
            assert_eq!(host.text(Path::new(FILE)), "localhost\n# a\n");
        }
        append("# a\n", false).revert(&host).unwrap();
        assert_eq!(host.text(Path::new(FILE)), "localhost\n");
    }
}
