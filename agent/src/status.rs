//! `status`: one document, from the running agent over its unix socket, or put together from what is on the host when
//! no agent answers. What is in it is each part's own.
//!
//! Also the agent's HTTP face on 15020: `/healthz/ready`, for Envoy's readiness listener, and the pages of the parts.

mod client;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod http;
mod server;
mod text;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::facts::Health;
use crate::part::Section;
use crate::terminal::Paint;

pub use client::{BUSY_TIMEOUT, QUICK_TIMEOUT, ask};
pub use server::{StatusPort, serve};

/// The whole document. Times are UTC.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Version of the document: it changes when a key goes or means something else, and not when one comes.
    #[serde(default)]
    pub version: u32,
    /// The agent that says this, or the reason why the document was put together without one.
    pub agent: Agent,
    /// The verdict.
    pub health: Health,
    /// The sections of the parts, by their keys.
    #[serde(flatten)]
    pub sections: BTreeMap<String, Value>,
}

/// The source of a status document.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Agent {
    /// No agent answered; the rest is what the host shows.
    NotAnswering {
        /// `not running`, or that it is stuck.
        reason: String,
    },
    /// The agent, while it isn't known yet who this VM is.
    Joining {
        /// Version of the agent.
        version: String,
        /// Process id of the agent.
        pid: u32,
        /// Start of the agent, or the reload by which it has its configuration.
        #[serde(with = "humantime_serde")]
        since: SystemTime,
        /// Start of its process, which a reload leaves as it is; absent: an agent of before did not say.
        #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
        process_since: Option<SystemTime>,
        /// The join source that is waited for.
        source: String,
    },
    /// The agent, in the mesh or on its way there.
    Running {
        /// Version of the agent.
        version: String,
        /// Process id of the agent.
        pid: u32,
        /// Start of the agent, or the reload by which it has its configuration.
        #[serde(with = "humantime_serde")]
        since: SystemTime,
        /// Start of its process, which a reload leaves as it is; absent: an agent of before did not say.
        #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
        process_since: Option<SystemTime>,
        /// Name in the mesh.
        node: String,
        /// `host:port` of the control plane.
        control_plane: String,
    },
}

impl Default for Agent {
    fn default() -> Self {
        Self::NotAnswering {
            reason: "not running".to_owned(),
        }
    }
}

/// Version of the documents that this program makes.
const VERSION: u32 = 1;

impl Default for Status {
    fn default() -> Self {
        Self {
            version: VERSION,
            agent: Agent::default(),
            health: Health::default(),
            sections: BTreeMap::new(),
        }
    }
}

impl Status {
    /// The state of one part; `None` when there is none under that key, or it is not understood.
    pub fn section<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        T::deserialize(self.sections.get(key)?).ok()
    }

    /// The text for people at `now`: `sections` in their order.
    pub fn to_text(&self, sections: &[Box<dyn Section>], now: SystemTime) -> String {
        self.to_painted(sections, now, Paint::PLAIN)
    }

    /// The same text in colors; nothing else in it commands a terminal.
    pub(crate) fn to_painted(&self, sections: &[Box<dyn Section>], now: SystemTime, paint: Paint) -> String {
        text::render(self, sections, now, paint)
    }
}
