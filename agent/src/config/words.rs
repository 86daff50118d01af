//! The TOML reader's and serde's findings, in an operator's words: theirs are of Rust's types.

use super::nearest::did_you_mean;

/// Remedy that offers any source of the join.
const SOURCE: &str = "write one of directory, kubernetes, gke and https, such as directory = { path = \
                      \"/etc/istio-vm-agent/bundle\" }";
/// Descriptions of what serde expected, and what that is.
const EXPECTED: [(&str, &str); 14] = [
    ("a string", "a text in double quotes"),
    ("a boolean", "true or false, without quotes"),
    ("a sequence", "a list, such as [\"value\"]"),
    ("a map", "a table of keys, such as { key = \"value\" }"),
    ("a duration", "a duration, such as \"90s\" or \"24h\""),
    ("u16", "a number from 0 to 65535, without quotes"),
    ("u32", "a number from 0 to 4294967295, without quotes"),
    ("usize", "a number from 0, without quotes"),
    ("f64", "a number, without quotes"),
    ("path string", "a path in double quotes"),
    ("a string or map", "one of its names in double quotes"),
    ("variant identifier", "one of its names"),
    ("field identifier", "one of its names"),
    ("table", "a table of keys, such as { key = \"value\" }"),
];

/// The problem of a text that is no TOML.
pub(super) fn of_syntax(message: &str) -> String {
    let problem = match message {
        _ if message.starts_with("duplicate key") => "is there twice: remove one of them",
        _ if message.starts_with("string values must be quoted") => {
            "is a text without quotes: put it in double quotes, as in key = \"value\""
        }
        _ if message.starts_with("unclosed") => "begins something that nothing ends: add the closing bracket or quote",
        _ if message.starts_with("cannot recurse") => "is nested too deeply",
        _ => "is no TOML from here on: a line is `key = value` with texts in double quotes, a [table], or a # comment",
    };
    problem.to_owned()
}

/// The name of a key that a table lacks.
pub(super) fn missing(message: &str) -> Option<&str> {
    message.trim_end().strip_prefix("missing field `")?.strip_suffix('`')
}

/// The problem of `key`, whose value is none that it can have; or of the table that it is.
pub(super) fn of(message: &str, key: &str) -> String {
    let message = message.trim_end();
    if message.contains("wanted exactly 1 element, found 0") || missing(message) == Some("join") {
        return format!("join: names no source: {SOURCE}");
    }
    if message.contains("wanted exactly 1 element") {
        return format!("join: names more than one source: {SOURCE}");
    }
    if let Some(name) = missing(message) {
        return format!("has no {name}, and needs one: add {name} = …");
    }
    if let Some((name, known)) = listed(message) {
        let what = match key.rsplit('.').next() == Some(name) {
            true => "is no key that there is".to_owned(),
            false => format!("{name:?} is none that it can be"),
        };
        return match known.as_slice() {
            [] => format!("{what}: remove it"),
            known => format!(
                "{what}{}: write one of {}",
                did_you_mean(name, known.iter().copied()),
                known.join(", ")
            ),
        };
    }
    match message.strip_prefix("invalid ") {
        _ if message == "wanted string or table" => format!("must be {}", EXPECTED[10].1),
        Some("IP address syntax") => "is no IP address, such as \"10.200.0.3\"".to_owned(),
        Some(rest) => invalid(rest, key).unwrap_or_else(|| message.to_owned()),
        None => message.to_owned(),
    }
}

/// `type: FOUND, expected WANTED`, or `value: …`.
fn invalid(rest: &str, key: &str) -> Option<String> {
    let (_, rest) = rest.split_once(": ")?;
    let (found, wanted) = rest.rsplit_once(", expected ")?;
    if key == "join.directory" {
        return Some(format!("is {}: write directory = {{ path = \"/…\" }}", value(found)));
    }
    let known = EXPECTED
        .iter()
        .find(|(name, _)| *name == wanted)
        .map(|(_, words)| *words);
    let wanted = match wanted {
        _ if wanted.starts_with("struct ") => EXPECTED[3].1,
        _ if wanted.starts_with("enum ") => EXPECTED[10].1,
        wanted => known.unwrap_or(wanted),
    };
    Some(format!("is {}, and must be {wanted}", value(found)))
}

/// serde's description of a value, as the operator wrote it.
fn value(found: &str) -> String {
    match found {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        found => {
            let bare = ["integer `", "boolean `", "floating point `", "string "];
            let inner = bare.iter().find_map(|kind| found.strip_prefix(kind)).unwrap_or(found);
            inner.trim_end_matches('`').to_owned()
        }
    }
}

/// The name that is unknown, and those that are known.
fn listed(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest = message
        .strip_prefix("unknown field `")
        .or_else(|| message.strip_prefix("unknown variant `"))?;
    let (name, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2).collect();
    Some((name, known))
}
