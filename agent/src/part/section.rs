//! A section of `status`: one key of its JSON document, and the lines of its text.

use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Channels, Site};

/// One section, whatever the type of its state. Text is made of the JSON, so that it is the same from a running agent
/// and without one.
pub trait Section: Send + Sync {
    /// Key in the JSON document.
    fn key(&self) -> &'static str;
    /// Title of the first line of the text; empty where the section goes on with the one before.
    fn title(&self) -> &'static str;
    /// State of a running part.
    fn live(&self, channels: &Channels) -> Value;
    /// State of a part that is not known yet.
    fn unknown(&self) -> Value;
    /// State that the host shows when no agent answers. Waits for nobody.
    fn offline(&self, site: &Site) -> Value;
    /// Lines for people; `None` for a state that another version of the agent has written.
    fn lines(&self, state: &Value, now: SystemTime) -> Option<Vec<String>>;
}

/// A section that is made of one typed state.
#[derive(Debug)]
pub struct State<T> {
    /// Key in the JSON document.
    pub key: &'static str,
    /// Title of the first line of the text.
    pub title: &'static str,
    /// State of a running part.
    pub live: fn(&Channels) -> T,
    /// State that the host shows when no agent answers.
    pub offline: fn(&Site) -> T,
    /// Lines for people.
    pub lines: fn(&T, SystemTime) -> Vec<String>,
}

impl<T: Default + DeserializeOwned + Serialize> Section for State<T> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn title(&self) -> &'static str {
        self.title
    }

    fn live(&self, channels: &Channels) -> Value {
        json(&(self.live)(channels))
    }

    fn unknown(&self) -> Value {
        json(&T::default())
    }

    fn offline(&self, site: &Site) -> Value {
        json(&(self.offline)(site))
    }

    fn lines(&self, state: &Value, now: SystemTime) -> Option<Vec<String>> {
        let state = T::deserialize(state).ok()?;
        Some((self.lines)(&state, now))
    }
}

/// A state has no key that is not a string and no failing part, so `null` is never made of one.
fn json(state: &impl Serialize) -> Value {
    serde_json::to_value(state).unwrap_or_default()
}

/// An age for people: two units are enough, `3h 12m ago` and not `3h 12m 4s 17ms ago`.
pub fn ago(then: SystemTime, now: SystemTime) -> String {
    let age = now.duration_since(then).unwrap_or_default();
    format!("{} ago", rounded(age))
}

/// A duration to its two largest units.
pub fn rounded(duration: Duration) -> String {
    let text = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ")
}
