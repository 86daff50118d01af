//! config.toml as a text whose keys have places: read whole, so that all that is wrong with it is told at once.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::key_places::KeyPlaces;
use super::{Config, ConfigError, Fault, Place, words};

/// More faults of a kind than this are of another file than was meant.
const MOST_FAULTS: usize = 50;
/// Tables whose keys are judged beside each other.
const OF_ONE: [&str; 3] = ["join", "envoy", "workload.container"];
/// A source that is nothing but well-formed, in place of one that can't be read.
const ANY_SOURCE: &str = "directory = { path = '/' }";

/// A text that is TOML.
pub(super) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    table: Spanned<DeTable<'a>>,
}

impl<'a> Document<'a> {
    /// Parses `text`; `path` is for error messages only.
    pub(super) fn parse(path: &'a Path, text: &'a str) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| {
            let place = place_at(path, text, error.span().map(|span| span.start));
            ConfigError::about(place, words::of_syntax(error.message()))
        })?;
        Ok(Self { path, text, table })
    }

    /// The configuration, checked; or all faults that can be found in it.
    pub(super) fn config(&self) -> Result<Config, ConfigError> {
        let (config, mut faults, passed_over) = self.read();
        if let Some(config) = &config {
            // What was taken out is missed by what stands beside it.
            let is_whole = |problem: &String| {
                let problem = without_index(problem);
                let is_of = |table: &str| {
                    let is_over = |over: &String| without_index(over).starts_with(table);
                    problem.starts_with(table) && passed_over.iter().any(is_over)
                };
                !OF_ONE.into_iter().any(is_of)
            };
            let problems = config.problems().into_iter().filter(is_whole);
            faults.extend(problems.map(|problem| self.fault(problem)));
        }
        match (config, ConfigError::all(faults.into_iter().map(ConfigError::from))) {
            (Some(config), None) => Ok(Config {
                places: self.places(),
                ..config
            }),
            (_, Some(error)) => Err(error),
            (None, None) => Err(ConfigError::new(self.path, "is no configuration")),
        }
    }

    /// Tells what is no value of its key, takes it out, and goes on with the rest; at last, the tables that something was
    /// taken out of.
    fn read(&self) -> (Option<Config>, Vec<Fault>, Vec<String>) {
        let (mut table, mut faults, mut passed_over) = (self.table.clone(), Vec::new(), Vec::new());
        while faults.len() < MOST_FAULTS {
            let error = match Config::deserialize(Deserializer::from(table.clone())) {
                Ok(config) => return (Some(config), faults, passed_over),
                Err(error) => error,
            };
            let key = key_of(&error, table.get_ref());
            // A table that something was taken out of may lack it.
            if !passed_over.contains(&key) {
                faults.push(self.explained(&error, &key));
            }
            let is_source = matches!(key.as_str(), "" | "join") || parent(&key) == "join";
            let taken_out = match is_source {
                true if passed_over.iter().any(|table| table == "join") => false,
                true => put_any_source(table.get_mut()),
                false => take_out(table.get_mut(), &key),
            };
            passed_over.push(key.clone());
            passed_over.push(if is_source { "join" } else { parent(&key) }.to_owned());
            if !taken_out {
                break;
            }
        }
        (None, faults, passed_over)
    }

    fn explained(&self, error: &Error, key: &str) -> Fault {
        let words = words::of(error.message(), key);
        Fault {
            place: place_at(self.path, self.text, error.span().map(|span| span.start)),
            problem: match key {
                "" => words,
                _ if words.starts_with("join: ") => words,
                key => format!("{key}: {words}"),
            },
        }
    }

    /// `problem` with the place of the key that it begins with; of the nearest table that is there when the key itself is
    /// absent, and the file alone without one.
    fn fault(&self, problem: String) -> Fault {
        let end = problem.find(|c: char| !(c.is_ascii_alphanumeric() || "_.[]".contains(c)));
        let key = problem.split_at(end.unwrap_or(problem.len())).0;
        let mut table = self.table.get_ref();
        let mut start = None;
        for part in key.split('.') {
            let (name, index) = indexed(part);
            let Some((at, value)) = table.get_key_value(name) else {
                break;
            };
            let entry = index.and_then(|index| value.get_ref().get(index));
            let (place, value) = entry.map_or_else(|| (at.span(), value), |entry| (entry.span(), entry));
            start = Some(place.start);
            let DeValue::Table(inner) = value.get_ref() else { break };
            table = inner;
        }
        let place = place_at(self.path, self.text, start);
        Fault { place, problem }
    }

    /// The place of each key.
    fn places(&self) -> KeyPlaces {
        let mut places = BTreeMap::new();
        self.collect(self.table.get_ref(), "", &mut places);
        KeyPlaces(places)
    }

    fn collect(&self, table: &DeTable<'_>, parent: &str, places: &mut BTreeMap<String, Place>) {
        for (name, value) in table {
            let key = join(parent, name.get_ref());
            for (key, inner) in tables(&key, value) {
                self.collect(inner, &key, places);
            }
            places.insert(key, place_at(self.path, self.text, Some(name.span().start)));
        }
    }
}

fn place_at(path: &Path, text: &str, start: Option<usize>) -> Place {
    let file = Place::from(path.display().to_string());
    match start.and_then(|start| text.get(..start)) {
        Some(before) => Place {
            line: Some(before.matches('\n').count() + 1),
            column: Some(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1),
            ..file
        },
        None => file,
    }
}

/// The deepest key whose name or value has the byte at `start`.
fn key_at(table: &DeTable<'_>, start: usize, above: &str) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let key = join(above, name.get_ref());
        let mut inner = tables(&key, value).into_iter();
        let deeper = inner.find_map(|(key, inner)| key_at(inner, start, &key));
        let is_here = name.span().contains(&start) || value.span().contains(&start);
        deeper.or_else(|| is_here.then_some(key))
    })
}

/// The tables that a value is, or is a list of, each with its key.
fn tables<'t, 'a>(key: &str, value: &'t Spanned<DeValue<'a>>) -> Vec<(String, &'t DeTable<'a>)> {
    match value.get_ref() {
        DeValue::Table(inner) => vec![(key.to_owned(), inner)],
        DeValue::Array(entries) => {
            let table = |(index, entry): (usize, &'t Spanned<DeValue<'a>>)| match entry.get_ref() {
                DeValue::Table(inner) => Some((format!("{key}[{index}]"), inner)),
                _ => None,
            };
            entries.iter().enumerate().filter_map(table).collect()
        }
        _ => Vec::new(),
    }
}

/// `name[index]`, the part of a key, in two.
fn indexed(part: &str) -> (&str, Option<usize>) {
    match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
        Some((name, index)) => (name, index.parse().ok()),
        None => (part, None),
    }
}

/// A key whose entries of lists are not told apart.
fn without_index(key: &str) -> String {
    let parts: Vec<_> = key.split('[').collect();
    let rest = parts
        .iter()
        .skip(1)
        .map(|part| part.split_once(']').map_or(*part, |(_, rest)| rest));
    parts.iter().take(1).copied().chain(rest).collect()
}

fn join(parent: &str, name: &str) -> String {
    match parent {
        "" => name.to_owned(),
        parent => format!("{parent}.{name}"),
    }
}

fn parent(key: &str) -> &str {
    key.rsplit_once('.').map_or("", |(parent, _)| parent)
}

/// The key that an error of the reader is about; of a missing one, its table.
fn key_of(error: &Error, table: &DeTable<'_>) -> String {
    match (words::missing(error.message()), error.span()) {
        (Some("join"), _) | (_, None) => String::new(),
        (_, Some(span)) => key_at(table, span.start, "").unwrap_or_default(),
    }
}

/// Puts a source that is well-formed in place of one that isn't.
fn put_any_source(document: &mut DeTable<'_>) -> bool {
    let Ok(source) = DeTable::parse(ANY_SOURCE) else {
        return false;
    };
    let span = source.span();
    let value = Spanned::new(span.clone(), DeValue::Table(source.into_inner()));
    document.insert(Spanned::new(span, "join".into()), value);
    true
}

/// Takes `key` out; false when it is not there.
fn take_out<'t>(document: &mut DeTable<'t>, key: &str) -> bool {
    let (above, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut table: &mut DeTable<'t> = document;
    for part in above.split('.').filter(|part| !part.is_empty()) {
        let (name, index) = indexed(part);
        let value = table.get_mut(name).map(Spanned::get_mut);
        let value = match (value, index) {
            (Some(DeValue::Array(entries)), Some(index)) => entries.get_mut(index).map(Spanned::get_mut),
            (value, _) => value,
        };
        match value {
            Some(DeValue::Table(inner)) => table = inner,
            _ => return false,
        }
    }
    table.remove(name).is_some()
}
