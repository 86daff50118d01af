//! Conditions of which not all is known: yes, no, or neither. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::envoy::view::StringMatch;

/// Truth of a condition, which may be unknown.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Truth {
    Yes,
    No,
    Unknown,
}

impl Truth {
    pub(super) fn of(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }

    pub(super) fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }

    pub(super) fn all(each: impl Iterator<Item = Self>) -> Self {
        each.fold(Self::Yes, |all, one| match (all, one) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Yes, Self::Yes) => Self::Yes,
        })
    }

    pub(super) fn any(each: impl Iterator<Item = Self>) -> Self {
        Self::all(each.map(Self::not)).not()
    }
}

/// Truth of "the text matches"; a regular expression is followed as far as istiod writes them, `.*` at either end.
pub(super) fn text(matches: &StringMatch, text: &str) -> Truth {
    if let Some(regex) = &matches.safe_regex {
        let (open, rest) = match regex.regex.strip_prefix(".*") {
            Some(rest) => (true, rest),
            None => (false, regex.regex.as_str()),
        };
        let (end, literal) = match rest.strip_suffix(".*") {
            Some(literal) => (true, literal),
            None => (false, rest),
        };
        let literal = literal.replace("\\.", "\u{0}");
        if literal.contains(['.', '*', '+', '?', '(', '[', '{', '|', '^', '$', '\\']) {
            return Truth::Unknown;
        }
        let literal = literal.replace('\u{0}', ".");
        return Truth::of(match (open, end) {
            (true, true) => text.contains(&literal),
            (true, false) => text.ends_with(&literal),
            (false, true) => text.starts_with(&literal),
            (false, false) => text == literal,
        });
    }
    let StringMatch {
        exact,
        prefix,
        suffix,
        contains,
        ..
    } = matches;
    match (exact, prefix, suffix, contains) {
        (Some(exact), ..) => Truth::of(text == exact),
        (_, Some(prefix), ..) => Truth::of(text.starts_with(prefix.as_str())),
        (_, _, Some(suffix), _) => Truth::of(text.ends_with(suffix.as_str())),
        (.., Some(part)) => Truth::of(text.contains(part.as_str())),
        _ => Truth::Unknown,
    }
}

/// Truth of "the text matches", where the text and the match are known.
pub(super) fn maybe_text(matches: &Value, known: Option<&str>) -> Truth {
    match (StringMatch::deserialize(matches), known) {
        (Ok(matches), Some(known)) => text(&matches, known),
        _ => Truth::Unknown,
    }
}

/// Truth of "the address is in the range" (envoy.config.core.v3.CidrRange).
pub(super) fn address(range: &Value, known: Option<IpAddr>) -> Truth {
    let network = || {
        let prefix: IpAddr = range["address_prefix"].as_str()?.parse().ok()?;
        let length = range["prefix_len"].as_u64().unwrap_or(0);
        IpNet::new(prefix, u8::try_from(length).ok()?).ok()
    };
    match (network(), known) {
        (Some(network), Some(known)) => Truth::of(network.contains(&known)),
        _ => Truth::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn regular_expressions_of_istiod_are_followed_and_no_others() {
        let of = |regex: &str| {
            maybe_text(
                &json!({"safe_regex": {"regex": regex}}),
                Some("spiffe://td/ns/shop/sa/cart"),
            )
        };
        assert_eq!(of(".*/ns/shop/.*"), Truth::Yes);
        assert_eq!(of(".*/ns/bank/.*"), Truth::No);
        assert_eq!(of("spiffe://td/.*"), Truth::Yes);
        assert_eq!(of(".*sa/[a-z]+"), Truth::Unknown);
        assert_eq!(maybe_text(&json!({"exact": "x"}), None), Truth::Unknown);
    }

    #[test]
    fn condition_that_is_not_known_decides_only_where_the_rest_does_not() {
        use Truth::{No, Unknown, Yes};
        assert_eq!(Truth::all([Yes, Unknown].into_iter()), Unknown);
        assert_eq!(Truth::all([No, Unknown].into_iter()), No);
        assert_eq!(Truth::any([Yes, Unknown].into_iter()), Yes);
        assert_eq!(Truth::any([No, Unknown].into_iter()), Unknown);
        assert_eq!(Truth::any([].into_iter()), No);
    }
}
