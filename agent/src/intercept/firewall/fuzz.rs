//! Fuzz target: what other programs' firewalls keep closed, whatever they are listed as.

use super::{Closed, Hook, iptables, of};

/// By nft's listing, in which iptables' matches are those of `saved`, and by `saved` as the legacy tables.
pub(in crate::intercept) fn closed(listing: &str, saved: &str, hook: Hook, wanted: &[u16]) -> Vec<Closed> {
    let listing = serde_json::from_str(listing).unwrap_or_default();
    let listed = of(&listing, hook, wanted, &|_| saved.to_owned());
    let legacy = iptables::closed("iptables-legacy", saved, hook, wanted);
    listed.into_iter().chain(legacy).collect()
}
