//! Places that a person goes to, to correct a value: for messages, and to tell where a value is from.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::ConfigError;

/// A file, a URL, an object of a cluster or an attribute; of a text, a line of it. Displays as `name:line:column`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Place {
    /// What it is called.
    #[serde(rename = "place")]
    pub name: String,
    /// Counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// In characters, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
}

impl From<String> for Place {
    fn from(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }
}

impl From<&str> for Place {
    fn from(name: &str) -> Self {
        name.to_owned().into()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        Ok(())
    }
}

/// The place of each key that somebody has written, tables among them.
#[derive(Clone, Debug, Default)]
pub struct KeyPlaces(pub(super) BTreeMap<String, Place>);

/// Places say nothing of what is configured: where they differ, the configuration is the same.
impl PartialEq for KeyPlaces {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl KeyPlaces {
    /// The place of `key`; `None` when nobody has written it.
    pub fn of(&self, key: &str) -> Option<&Place> {
        self.0.get(key)
    }

    /// `error`, with the places of the keys that it names in place of one.
    pub(crate) fn locate(&self, error: ConfigError) -> ConfigError {
        let located = error.faults().iter().map(|fault| match self.of(&fault.place.name) {
            Some(place) => ConfigError::about(place.clone(), fault.to_string()),
            None => fault.clone().into(),
        });
        ConfigError::all(located).unwrap_or(error)
    }
}
