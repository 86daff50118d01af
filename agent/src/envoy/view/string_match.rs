//! envoy.type.matcher.v3.StringMatcher.

use serde::{Deserialize, Serialize};

/// envoy.type.matcher.v3.RegexMatcher.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Regex {
    /// The expression.
    pub regex: String,
}

/// envoy.type.matcher.v3.StringMatcher.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct StringMatch {
    /// The whole text.
    pub exact: Option<String>,
    /// The text's beginning.
    pub prefix: Option<String>,
    /// The text's end.
    pub suffix: Option<String>,
    /// A part of the text.
    pub contains: Option<String>,
    /// A regular expression.
    pub safe_regex: Option<Regex>,
}
