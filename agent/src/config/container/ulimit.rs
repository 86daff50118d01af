//! Limits of a container's processes.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::nearest::did_you_mean;
use crate::facts::number::whole;

/// Names that Docker knows (docker/go-units, ulimit.go).
const NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `soft[:hard]`; -1 is no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ulimit {
    /// The limit in force.
    pub soft: i64,
    /// Limit up to which a process may raise it.
    pub hard: i64,
}

/// The reason for which `name` is none of a limit.
pub(super) fn problem(name: &str) -> Option<String> {
    let is_known = NAMES.contains(&name);
    (!is_known).then(|| format!("{name:?} is no limit, such as \"nofile\"{}", did_you_mean(name, NAMES)))
}

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text {
            "-1" => Some(-1),
            _ => whole::<i64>(text),
        };
        let (soft, hard) = text.split_once(':').unwrap_or((text, text));
        match (number(soft), number(hard)) {
            (Some(soft), Some(hard)) if hard == -1 || (soft != -1 && soft <= hard) => Ok(Self { soft, hard }),
            _ => Err(format!(
                "{text:?} is no soft or soft:hard limit, such as \"65536\" or \"1024:4096\" (-1 is none)"
            )),
        }
    }
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.soft, self.hard)
    }
}

impl Serialize for Ulimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Ulimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
