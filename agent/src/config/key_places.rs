//! Where each key was written.

use std::collections::BTreeMap;

use super::{ConfigError, Place};

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
