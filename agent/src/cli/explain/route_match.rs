//! The requests that a route is for: its conditions on path, headers and query, of a request of which not all is known. Pure.

use serde_json::Value;

use super::call::Call;
use super::truth::{self, Truth};
use crate::envoy::view::{RouteMatch, StringMatch};

/// Kinds of StringMatcher that a HeaderMatcher has as fields of its own, too, from before it had `string_match`.
const KINDS: [&str; 4] = ["exact", "prefix", "suffix", "contains"];

/// Truth of "a route is for the call's request".
pub(super) fn fits(matches: &RouteMatch, call: &Call<'_>) -> Truth {
    let headers = matches.headers.iter().map(|it| header(it, call));
    let query = matches.query_parameters.iter().map(|it| parameter(it, call.path));
    Truth::all([path(matches, call.path)].into_iter().chain(headers).chain(query))
}

/// The conditions in words: the path's, then the others.
pub(super) fn words(matches: &RouteMatch) -> String {
    let prefix = matches.prefix.as_ref().or(matches.path_separated_prefix.as_ref());
    let prefix = prefix.map(|prefix| format!("{prefix}*"));
    let regex = matches.safe_regex.as_ref().map(|regex| regex.regex.clone());
    let path = prefix.or_else(|| matches.path.clone()).or(regex).unwrap_or_default();
    let headers = matches.headers.iter().map(|it| format!(", header {}", condition(it)));
    let query = matches
        .query_parameters
        .iter()
        .map(|it| format!(", query {}", condition(it)));
    headers.chain(query).fold(path, |words, one| words + &one)
}

/// A path that isn't told is any, and is one that a prefix of `/` is for.
fn path(matches: &RouteMatch, known: Option<&str>) -> Truth {
    let RouteMatch {
        prefix,
        path: whole,
        path_separated_prefix,
        safe_regex,
        ..
    } = matches;
    let Some(known) = known.map(|path| path.split('?').next().unwrap_or_default()) else {
        let is_any = prefix.as_deref() == Some("/") || safe_regex.as_ref().is_some_and(|it| it.regex == ".*");
        return if is_any { Truth::Yes } else { Truth::Unknown };
    };
    if let Some(regex) = safe_regex {
        let regex = StringMatch {
            safe_regex: Some(regex.clone()),
            ..StringMatch::default()
        };
        return truth::text(&regex, known);
    }
    let is_below = |prefix: &String| {
        let rest = known.strip_prefix(prefix.as_str());
        rest.is_some_and(|it| it.is_empty() || it.starts_with('/'))
    };
    Truth::of(
        prefix.as_ref().is_some_and(|prefix| known.starts_with(prefix.as_str()))
            || whole.as_deref() == Some(known)
            || path_separated_prefix.as_ref().is_some_and(is_below),
    )
}

/// envoy.config.route.v3.HeaderMatcher. Where a header is told of at all, those that aren't are taken to be missing.
fn header(matcher: &Value, call: &Call<'_>) -> Truth {
    let name = matcher["name"].as_str().unwrap_or_default();
    let told = call.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
    let value = match (told, name) {
        (Some((_, value)), _) => Some(value.as_str()),
        (None, ":path") => call.path,
        (None, _) if matcher["treat_missing_header_as_empty"] == true && !call.headers.is_empty() => Some(""),
        (None, _) => None,
    };
    let is_inverted = matcher["invert_match"] == true;
    let holds = match (value, matcher["present_match"].as_bool()) {
        (None, _) if call.headers.is_empty() || name.starts_with(':') => return Truth::Unknown,
        (value, Some(wanted)) => Truth::of(value.is_some() == wanted),
        // One that is missing fits nothing, nor the contrary of anything.
        (None, None) => return Truth::No,
        (Some(value), None) => text(matcher, value),
    };
    if is_inverted { holds.not() } else { holds }
}

/// envoy.config.route.v3.QueryParameterMatcher.
fn parameter(matcher: &Value, path: Option<&str>) -> Truth {
    let Some(path) = path else { return Truth::Unknown };
    let query = path.split_once('?').map(|(_, query)| query).unwrap_or_default();
    let mut all = query.split('&').map(|one| one.split_once('=').unwrap_or((one, "")));
    match all.find(|(name, _)| matcher["name"] == *name) {
        None => Truth::No,
        Some(_) if !matcher["present_match"].is_null() => Truth::of(matcher["present_match"] == true),
        Some((_, value)) => text(matcher, value),
    }
}

/// A header's or a parameter's value, by the kind of match that there is.
fn text(matcher: &Value, value: &str) -> Truth {
    let old = KINDS.iter().find_map(|kind| {
        let wanted = matcher[format!("{kind}_match")].as_str()?;
        Some(serde_json::json!({ *kind: wanted }))
    });
    let matches = old.unwrap_or_else(|| matcher["string_match"].clone());
    match matches["ignore_case"] == true {
        // Envoy folds ASCII alone.
        true => Truth::Unknown,
        false => truth::maybe_text(&matches, Some(value)),
    }
}

/// A condition in words: its name, and what is asked of its value.
fn condition(matcher: &Value) -> String {
    let name = matcher["name"].as_str().unwrap_or_default();
    let not = if matcher["invert_match"] == true { "not " } else { "" };
    let wanted = |kind: &str| {
        let old = || matcher[format!("{kind}_match")].as_str();
        matcher["string_match"][kind].as_str().or_else(old)
    };
    let kind = KINDS.iter().find_map(|kind| Some((kind, wanted(kind)?)));
    let regex = matcher["string_match"]["safe_regex"]["regex"].as_str();
    match (kind, regex, matcher["present_match"].as_bool()) {
        (Some((kind, value)), ..) => format!("{name} {not}{kind} {value:?}"),
        (_, Some(regex), _) => format!("{name} {not}by {regex}"),
        (_, _, Some(wanted)) if wanted == not.is_empty() => format!("{name} present"),
        (_, _, Some(_)) => format!("{name} absent"),
        _ => format!("{name} by another condition"),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    fn fit(matches: Value, path: Option<&str>, headers: &[(&str, &str)]) -> Truth {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let call = Call {
            host: "cart",
            address: [10, 0, 0, 1].into(),
            port: 80,
            path,
            service: None,
            headers: &headers,
        };
        fits(&RouteMatch::deserialize(matches).unwrap(), &call)
    }

    #[test]
    fn conditions_on_headers_hold_as_envoy_has_them() {
        let with = |condition: Value, headers: &[(&str, &str)]| {
            let mut header = json!({ "name": "end-user" });
            header
                .as_object_mut()
                .unwrap()
                .extend(condition.as_object().unwrap().clone());
            fit(json!({ "prefix": "/", "headers": [header] }), None, headers)
        };
        let jason = [("End-User", "jason")];
        let other = [("x", "y")];
        let exact = json!({ "string_match": { "exact": "jason" } });
        assert_eq!(with(exact.clone(), &jason), Truth::Yes);
        assert_eq!(with(exact.clone(), &[("end-user", "mary")]), Truth::No);
        assert_eq!(with(exact.clone(), &other), Truth::No);
        assert_eq!(with(exact, &[]), Truth::Unknown);
        assert_eq!(with(json!({ "prefix_match": "ja" }), &jason), Truth::Yes);
        assert_eq!(with(json!({ "present_match": true }), &other), Truth::No);
        assert_eq!(
            with(json!({ "present_match": true, "invert_match": true }), &other),
            Truth::Yes
        );
        let without = json!({ "string_match": { "exact": "jason" }, "invert_match": true });
        assert_eq!(with(without.clone(), &jason), Truth::No);
        assert_eq!(with(without, &other), Truth::No);
        let empty = json!({ "string_match": { "exact": "jason" }, "invert_match": true, "treat_missing_header_as_empty": true });
        assert_eq!(with(empty, &other), Truth::Yes);
    }

    #[test]
    fn conditions_on_path_and_query_hold_where_they_are_told() {
        let shop = || json!({ "path_separated_prefix": "/shop" });
        assert_eq!(fit(shop(), Some("/shop/1?a=b"), &[]), Truth::Yes);
        assert_eq!(fit(shop(), Some("/shopping"), &[]), Truth::No);
        assert_eq!(fit(shop(), None, &[]), Truth::Unknown);
        let query =
            || json!({ "prefix": "/", "query_parameters": [{ "name": "v", "string_match": { "exact": "2" } }] });
        assert_eq!(fit(query(), Some("/?u=1&v=2"), &[]), Truth::Yes);
        assert_eq!(fit(query(), Some("/?v=1"), &[]), Truth::No);
        assert_eq!(fit(query(), Some("/"), &[]), Truth::No);
        assert_eq!(fit(query(), None, &[]), Truth::Unknown);
    }

    #[test]
    fn conditions_are_told_in_words() {
        let matches = json!({ "prefix": "/a", "headers": [
            { "name": "end-user", "string_match": { "exact": "jason" } },
            { "name": "x", "present_match": true, "invert_match": true },
        ], "query_parameters": [{ "name": "v", "string_match": { "safe_regex": { "regex": "1.*" } } }] });
        let told = words(&RouteMatch::deserialize(matches).unwrap());
        assert_eq!(
            told,
            "/a*, header end-user exact \"jason\", header x absent, query v by 1.*"
        );
    }
}
