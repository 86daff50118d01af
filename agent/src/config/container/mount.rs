//! Mounts: files of the VM's that a container has.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::absolute;

/// Directory in the container that its secrets are in, where Docker's own are.
pub const SECRETS_TARGET: &str = "/run/secrets";

/// `source:target[:ro]`, as `docker run -v` has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// Absolute path on the VM, or the name of a volume of Docker's.
    pub source: String,
    /// Place in the container.
    pub target: String,
    /// True when the container can't write it.
    pub read_only: bool,
}

impl Mount {
    /// True for a volume, which Docker makes and keeps.
    pub fn is_volume(&self) -> bool {
        !Path::new(&self.source).is_absolute()
    }
}

impl FromStr for Mount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(':');
        let (source, target, access, rest) = (parts.next(), parts.next(), parts.next(), parts.next());
        let is_volume = |source: &str| {
            let first = source.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
            first && source.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
        };
        let read_only = match access {
            None | Some("rw") => Some(false),
            Some("ro") => Some(true),
            Some(_) => None,
        };
        match (source, target, read_only, rest) {
            (Some(source), Some(target), Some(read_only), None)
                if absolute("", Path::new(source)).is_ok() || is_volume(source) =>
            {
                Ok(Self {
                    source: source.to_owned(),
                    target: target.to_owned(),
                    read_only,
                })
            }
            _ => Err(format!(
                "{text:?} is no source:target or source:target:ro, such as \"/srv/data:/data:ro\"; a source that is no \
                 absolute path is the name of a volume"
            )),
        }
    }
}

impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { ":ro" } else { "" };
        write!(f, "{}:{}{access}", self.source, self.target)
    }
}

impl Serialize for Mount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
