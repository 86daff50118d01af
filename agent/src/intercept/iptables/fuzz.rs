//! Properties of iptables' texts, whatever they say.

use super::iptables_save::Saved;
use super::render;
use crate::intercept::Ruleset;
use crate::intercept::rules::{Family, Table};

/// Reads a text as output of `iptables-save`.
pub(crate) fn save(text: &str) {
    let saved = Saved::parse(text);
    assert!(saved.own_rules() <= text.lines().count());
    assert!(
        saved.has_marks()
            || saved.tables.iter().all(|table| table
                .contents()
                .keys()
                .all(|chain| !chain.starts_with("ISTIO_") || saved.own_rules() > 0))
    );
    for table in &saved.tables {
        for line in table.removal() {
            assert!(
                ["-D ", "-F ISTIO_", "-X ISTIO_"]
                    .iter()
                    .any(|start| line.starts_with(start)),
                "{line}"
            );
            assert!(line.contains("ISTIO_"), "{line} takes out what is not ours");
        }
        for rule in table.contents().into_values().flatten() {
            assert!(rule.lines().count() <= 1, "a rule is a line");
        }
    }
}

/// Writes the rules as `iptables-restore` is given them.
pub(in crate::intercept) fn written(ruleset: &Ruleset) {
    for family in [Family::V4, Family::V6] {
        for table in Table::ALL {
            let lines = render::contents(ruleset, table, family);
            assert!(
                lines.values().flatten().all(|line| line.lines().count() == 1),
                "a rule is a line"
            );
        }
    }
}
