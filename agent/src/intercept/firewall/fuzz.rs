//! Fuzz target: what other programs' firewalls keep closed, whatever they are listed as.

use std::cell::OnceCell;

use super::{Closed, Listing, Target, Way};
use crate::host::fuzz::machine;

/// By nft's listing, in which iptables' matches are those of `saved`, and by `saved` as the legacy tables.
pub(in crate::intercept) fn closed(listing: &str, saved: &str, way: Way<'_>, wanted: &[Target]) -> Option<Closed> {
    let listing = Listing {
        legacy: vec![("iptables-legacy".to_owned(), saved.to_owned())],
        ..listing_of(listing, saved)
    };
    listing.closed(way, wanted).expect("all is listed")
}

/// Nothing is in legacy tables.
pub(super) fn listing_of(listing: &str, saved: &str) -> Listing {
    Listing {
        host: machine(""),
        families: (true, true),
        nftables: serde_json::from_str(listing).unwrap_or_default(),
        saved: [0, 1].map(|_| OnceCell::from(Some(saved.to_owned()))),
        legacy: Vec::new(),
    }
}
