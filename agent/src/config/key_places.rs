//! Where each key was written.

use std::collections::BTreeMap;

use super::{ConfigError, Fault, Place};

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

    /// `key` behind its place, for messages that come long after the configuration was read.
    pub(crate) fn named(&self, key: &str) -> String {
        self.of(key)
            .map_or_else(|| key.to_owned(), |place| format!("{place}: {key}"))
    }

    /// `error`, with the places of the keys that it names in place of one.
    pub(crate) fn locate(&self, error: ConfigError) -> ConfigError {
        error.map(|fault| match self.of(&fault.place.name) {
            Some(place) => Fault {
                place: place.clone(),
                problem: fault.to_string(),
            },
            None => fault,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::{Config, ConfigError};

    #[test]
    fn error_that_may_be_over_at_the_next_try_is_one_wherever_it_is() {
        let text = "[join]\ndirectory = { path = '/b' }\n[network]\nname = 'vm-1'\n";
        let places = Config::parse(Path::new("c.toml"), text).unwrap().places;
        for (key, place) in [
            ("network.name", "c.toml:4:1: network.name: gone"),
            ("/b/cluster.env", "/b/cluster.env: gone"),
        ] {
            let error = || ConfigError::key(key, "gone");
            assert_eq!(places.locate(error()).to_string(), place);
            assert!(
                places.locate(error()).is_final() && !places.locate(error().passing()).is_final(),
                "{key}"
            );
        }
    }
}
