//! A fact of each application of this VM.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The state of the only application, or that of each of several by its name. The only one's is written plainly, as it was
/// before there could be several.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ByWorkload<T> {
    /// The state of the only application.
    Only(T),
    /// The state of each application that has one, by its name.
    Each(BTreeMap<String, T>),
}

impl<T: Default> Default for ByWorkload<T> {
    fn default() -> Self {
        Self::Only(T::default())
    }
}

impl<T> ByWorkload<T> {
    /// All states, each with the name of its application; the only one has none.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&str>, &T)> {
        let (only, each) = match self {
            Self::Only(state) => (Some(state), None),
            Self::Each(states) => (None, Some(states)),
        };
        let each = each.into_iter().flatten();
        let each = each.map(|(name, state)| (Some(name.as_str()), state));
        only.map(|state| (None, state)).into_iter().chain(each)
    }

    /// The state of the only one, or of the one with this name.
    pub fn of(&self, name: &str) -> Option<&T> {
        match self {
            Self::Only(state) => Some(state),
            Self::Each(states) => states.get(name),
        }
    }

    /// Lines for people: `line` of each, after its name where there are several.
    pub fn lines(&self, line: impl Fn(&T) -> String) -> Vec<String> {
        let lines = self.iter().map(|(name, state)| named(name, &line(state)));
        lines.collect()
    }
}

/// `words` about the application of that name; of the only one as they are.
pub fn named(name: Option<&str>, words: &str) -> String {
    match name {
        Some(name) => format!("{name}: {words}"),
        None => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ServiceState;

    #[test]
    fn state_of_the_only_application_is_written_without_its_name() {
        let error = "it exits with 1".to_owned();
        let failed = ServiceState::Failed { error };
        let only = ByWorkload::Only(failed.clone());
        assert_eq!(
            serde_json::to_value(&only).unwrap(),
            serde_json::json!({ "state": "failed", "error": "it exits with 1" })
        );
        let each = ByWorkload::Each([("state".to_owned(), failed.clone())].into());
        for states in [only, each] {
            let written = serde_json::to_value(&states).unwrap();
            assert_eq!(
                serde_json::from_value::<ByWorkload<ServiceState>>(written).unwrap(),
                states
            );
            assert_eq!(states.of("state"), Some(&failed));
        }
    }
}
