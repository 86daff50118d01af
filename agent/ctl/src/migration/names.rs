//! Values that are checked as they are read.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The longest label of DNS (RFC 1123), and so the longest name of a Service or namespace.
const LONGEST: usize = 63;

/// The name of an object of Kubernetes: a label of DNS.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub(crate) struct Name(String);

/// A word that can be printed and put into a header: visible ASCII, not empty.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub(crate) struct Text(String);

/// The calls that the pods get, in percent.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u8")]
pub(crate) struct Share(u8);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Text {
    /// A constant of this program.
    pub(crate) fn known(text: &'static str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Share {
    /// All calls go to the VM.
    pub(crate) const NONE: Self = Self(0);
    /// All calls go to the pods.
    pub(crate) const ALL: Self = Self(100);

    pub(crate) fn of_pods(self) -> u8 {
        self.0
    }

    pub(crate) fn of_vm(self) -> u8 {
        100 - self.0
    }
}

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = !text.is_empty()
            && text.len() <= LONGEST
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        match is_name {
            true => Ok(Self(text)),
            false => Err(format!(
                "{text:?} is no name of Kubernetes: up to {LONGEST} of a-z, 0-9 and -, not - at an end"
            )),
        }
    }
}

impl TryFrom<String> for Text {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text)),
            false => Err(format!("{text:?} is empty, or has blanks or signs beyond ASCII")),
        }
    }
}

impl TryFrom<u8> for Share {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        match percent {
            0..=100 => Ok(Self(percent)),
            _ => Err(format!("{percent} is no share: 0 to 100 percent")),
        }
    }
}

impl std::str::FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent: u8 = text
            .parse()
            .map_err(|_| format!("{text:?} is no share: 0 to 100 percent"))?;
        Self::try_from(percent)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} %", self.0)
    }
}

/// The longest time of a file: what is longer is a slip, and the end of it no moment that can be counted to.
const LONGEST_TIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A time as people write it: `90s`, `5m`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time = humantime::parse_duration(&text);
    let time = time.map_err(|error| de::Error::custom(format!("{text:?} is no time: {error}")))?;
    match time <= LONGEST_TIME {
        true => Ok(time),
        false => Err(de::Error::custom(format!("{text:?} is longer than 30 days"))),
    }
}
