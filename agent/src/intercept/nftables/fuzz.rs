//! Properties of nftables' texts, whatever they say.

use super::{Family, render};
use crate::intercept::Ruleset;

/// Reads a text as output of `nft list table`.
pub(crate) fn list(text: &str) {
    let print = render::fingerprint(text);
    assert!(print.rules() <= text.lines().count());
    assert!(render::packets(text, Family::Inet).len() <= print.rules());
}

/// Writes the rules as `nft` is given them.
pub(in crate::intercept) fn written(ruleset: &Ruleset) {
    let texts = [Family::Inet, Family::Bridge].map(|family| render::table(ruleset, family));
    let rules: usize = texts.iter().map(|text| render::fingerprint(text).rules()).sum();
    assert_eq!(rules, ruleset.rules.len(), "a rule is a line");
}
