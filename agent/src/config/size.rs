//! An amount of memory or disk, as Docker writes it: `512m`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

/// Units, each 1024 times the one before.
const UNITS: [char; 5] = ['b', 'k', 'm', 'g', 't'];

/// A number of bytes.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Size(u64);

impl Size {
    /// So many MiB.
    pub const fn mebibytes(count: u32) -> Self {
        Self((count as u64) << 20)
    }

    /// The number.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        // "512m", "512mb" and "512MiB" are the same to Docker.
        let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit());
        let count = lower.strip_suffix(unit).unwrap_or(&lower);
        let short = unit
            .strip_suffix("ib")
            .or_else(|| unit.strip_suffix('b').filter(|rest| !rest.is_empty()))
            .unwrap_or(unit);
        let power = match short {
            "" => Some(0),
            _ => UNITS.iter().position(|unit| short == unit.to_string()),
        };
        power
            .and_then(|power| count.parse::<u64>().ok()?.checked_mul(1 << (10 * power)))
            // Docker counts in signed numbers.
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no size, such as \"512m\" or \"2g\""))
    }
}

impl fmt::Display for Size {
    /// In the largest unit that says it exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut count, mut power) = (self.0, 0);
        while count != 0 && count % 1024 == 0 && power + 1 < UNITS.len() {
            (count, power) = (count / 1024, power + 1);
        }
        write!(f, "{count}{}", UNITS.get(power).unwrap_or(&'b'))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_as_docker_does() {
        for (text, bytes) in [
            ("1", 1),
            ("7b", 7),
            ("512m", 512 << 20),
            ("512MB", 512 << 20),
            ("2GiB", 2 << 30),
            ("3k", 3072),
        ] {
            assert_eq!(text.parse::<Size>().unwrap().bytes(), bytes, "{text}");
        }
        for wrong in [
            "",
            "m",
            "-1",
            "1.5g",
            "1 g",
            "1x",
            "1mm",
            "ib",
            "9999999999t",
            "16777216t",
        ] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn size_reads_the_same_as_it_is_shown(bytes in 0_u64..=i64::MAX as u64, text in "\\PC{0,12}") {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
            let _ = text.parse::<Size>();
        }
    }
}
