//! Numbers, as configurations write them.

use std::str::FromStr;

/// A whole number of digits alone. Rust's own parsers take `+80`, and others read `080` as octal: neither is a number here.
pub(crate) fn whole<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    is_plain.then(|| text.parse().ok()).flatten()
}

/// A port from 1 to 65535.
pub(crate) fn port(text: &str) -> Option<u16> {
    whole(text).filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_is_of_digits_alone() {
        assert_eq!(
            (whole("0"), whole("65535"), port("1")),
            (Some(0), Some(u16::MAX), Some(1))
        );
        for text in [
            "", "+1", "-1", "01", "00", " 1", "1 ", "1.0", "1e1", "0x1", "１", "65536",
        ] {
            assert_eq!(whole::<u16>(text), None, "{text}");
        }
        assert_eq!(port("0"), None);
    }
}
