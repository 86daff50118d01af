//! The place of a key in config.toml, for errors in what it means.

use std::ops::Range;
use std::path::Path;

use toml::de::{DeTable, DeValue};

/// `file:line:column` of the key that `problem` begins with, lines and columns counted from 1; of the nearest table
/// that is there when the key itself is absent, and `file` alone without one.
pub(super) fn place(path: &Path, text: &str, problem: &str) -> String {
    let end = problem.find(|c: char| !(c.is_ascii_alphanumeric() || "_.".contains(c)));
    let key = problem.split_at(end.unwrap_or(problem.len())).0;
    at(path, text, span(text, key).map(|span| span.start))
}

fn at(path: &Path, text: &str, start: Option<usize>) -> String {
    let file = path.display();
    match start.and_then(|start| text.get(..start)) {
        Some(before) => {
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("{file}:{line}:{column}")
        }
        None => file.to_string(),
    }
}

fn span(text: &str, key: &str) -> Option<Range<usize>> {
    let document = DeTable::parse(text).ok()?;
    let mut table = document.get_ref();
    let mut found = None;
    for name in key.split('.') {
        let Some((at, value)) = table.get_key_value(name) else {
            break;
        };
        found = Some(at.span());
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    found
}

/// The place and the words of an error of the TOML reader, the key first where the text is TOML.
pub(super) fn explain(path: &Path, text: &str, error: &toml::de::Error) -> (String, String) {
    let start = error.span().map(|span| span.start);
    let key = start.and_then(|start| Some((DeTable::parse(text).ok()?, start)));
    let key = key.and_then(|(document, start)| key_at(document.get_ref(), start, ""));
    let words = plain(error.message());
    let problem = match key {
        Some(key) if !words.starts_with("join: ") => format!("{key}: {words}"),
        _ => words,
    };
    (at(path, text, start), problem)
}

/// The deepest key whose name or value has the byte at `start`.
fn key_at(table: &DeTable<'_>, start: usize, parent: &str) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let key = match parent {
            "" => name.get_ref().to_string(),
            parent => format!("{parent}.{}", name.get_ref()),
        };
        let deeper = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, start, &key),
            _ => None,
        };
        let is_here = name.span().contains(&start) || value.span().contains(&start);
        deeper.or_else(|| is_here.then_some(key))
    })
}

/// The library's words for Rust's types, as an operator knows them.
fn plain(message: &str) -> String {
    const SOURCE: &str = "write one of directory, kubernetes, gke and https, such as directory = { path = \
                          \"/etc/istio-vm-agent/bundle\" }";
    let message = message.trim_end();
    if message.contains("wanted exactly 1 element, found 0") || message == "missing field `join`" {
        return format!("join: names no source: {SOURCE}");
    }
    if message.contains("wanted exactly 1 element") {
        return format!("join: names more than one source: {SOURCE}");
    }
    match message.split_once("expected struct ") {
        Some((before, _)) => format!("{before}expected a table of keys, such as {{ key = \"value\" }}"),
        None => message
            .replace("expected u16", "expected a number from 0 to 65535")
            .replace("expected u32", "expected a number from 0 to 4294967295")
            .replace("expected f64", "expected a number")
            .replace("expected a sequence", "expected a list, such as [\"value\"]"),
    }
}
