//! Durations as protobuf's JSON has them (`90s`, `0.250s`), and as Go writes them (`1m30s`, `250ms`).

use std::time::Duration;

/// Units of Go's time.ParseDuration, in nanoseconds; of two that fit the longer is first.
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads protobuf's spelling: seconds, with a fraction or without, and an `s`. `None` when it is none.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let seconds = text.strip_suffix('s')?;
    let plain = seconds.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    plain.then(|| nanoseconds(text)).flatten().map(Duration::from_nanos)
}

/// Go's spelling to protobuf's, with 0, 3, 6 or 9 decimals; `None` when it is no duration.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let (sign, rest) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let nanos = match rest {
        "0" => 0,
        rest => nanoseconds(rest)?,
    };
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let decimals = match fraction {
        0 => String::new(),
        f if f % 1_000_000 == 0 => format!(".{:03}", f / 1_000_000),
        f if f % 1_000 == 0 => format!(".{:06}", f / 1_000),
        f => format!(".{f:09}"),
    };
    Some(format!("{sign}{seconds}{decimals}s"))
}

/// One or more numbers with a unit each.
fn nanoseconds(mut rest: &str) -> Option<u64> {
    let mut sum: u64 = 0;
    loop {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(end);
        let (unit, nanos) = UNITS.iter().find(|(unit, _)| tail.starts_with(unit))?;
        sum = sum.checked_add(scaled(number, *nanos)?)?;
        rest = &tail[unit.len()..];
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut nanos = whole.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        place /= 10;
        nanos = nanos.checked_add(u64::from(digit.to_digit(10)?) * place)?;
    }
    Some(nanos)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protobufs_spelling_is_read_and_no_other() {
        for (text, wanted) in [("45s", 45_000), ("1.5s", 1_500), (".5s", 500), ("0s", 0)] {
            assert_eq!(parse(text), Some(Duration::from_millis(wanted)), "{text}");
        }
        for text in [
            "",
            "s",
            ".s",
            "1m",
            "-1s",
            "+1s",
            "1..2s",
            "1e3s",
            "infs",
            "1m1s",
            "5ms",
            "99999999999s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn gos_spellings_become_seconds() {
        let cases = [
            ("45s", "45s"),
            ("1m", "60s"),
            ("1h2m3.5s", "3723.500s"),
            ("250ms", "0.250s"),
            ("1.5us", "0.000001500s"),
            ("2µs", "0.000002s"),
            (".5s", "0.500s"),
            ("0", "0s"),
            ("0s", "0s"),
            ("-1m", "-60s"),
        ];
        for (text, wanted) in cases {
            assert_eq!(canonical(text).as_deref(), Some(wanted), "{text}");
        }
        for text in ["", "s", "45", "1x", "1s2", ".s", "1..2s", "99999999999h", "1 s", "- 1s"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn duration_of_any_text_is_read_without_a_panic(text in any::<String>(), gos in "[-+]?[0-9.smhuµn]{0,20}") {
            let _ = (canonical(&text), parse(&gos));
            let _ = canonical(&gos);
        }
    }
}
