//! Remains of the agent, which a `revert` could not put back.

use std::fmt;

/// Things that are not as they were.
#[derive(Debug)]
pub(super) struct Remains {
    /// Steps that could not be done, and why.
    pub(super) failed: Vec<String>,
    /// Traces that are still there.
    pub(super) left: Vec<String>,
}

impl std::error::Error for Remains {}

impl Remains {
    /// All that is wrong, one by one.
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let left = self.left.iter().map(|trace| format!("{trace}: is left on this host"));
        self.failed.iter().cloned().chain(left)
    }
}

/// The failures, and what is left, one a line.
impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |head: &str, items: &[String]| match items.is_empty() {
            true => String::new(),
            false => format!("{head}\n- {}\n", items.join("\n- ")),
        };
        write!(
            f,
            "this host is not as it was before istio-vm-agent\n{}{}mend what is named, then `istio-vm-agent revert` again",
            list("failed:", &self.failed),
            list("left on it:", &self.left)
        )
    }
}
