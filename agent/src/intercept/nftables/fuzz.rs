//! What holds of nftables' texts, whatever they say.

use super::render;
use crate::intercept::Ruleset;

/// What `nft list table` printed.
pub(crate) fn list(text: &str) {
    let print = render::fingerprint(text);
    assert!(print.rules() <= text.lines().count());
}

/// What is given to `nft`.
pub(in crate::intercept) fn written(ruleset: &Ruleset) {
    let text = render::table(ruleset);
    assert_eq!(
        render::fingerprint(&text).rules(),
        ruleset.rules.len(),
        "a rule is a line"
    );
}
