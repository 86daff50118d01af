//! The file with a request header: one line, `Name: value`. Errors never quote it.

use anyhow::{Context, Result, ensure};
use http::header::{HeaderName, HeaderValue};

/// Web servers take no longer header.
pub(super) const MAX_BYTES: usize = 16 << 10;

/// Reads the file's text; the value is marked as not to be shown.
pub(in crate::join) fn parse(text: &str) -> Result<(HeaderName, HeaderValue)> {
    let line = text.trim();
    ensure!(!line.contains(['\n', '\r']), "must be one line, `Name: value`");
    let (name, value) = line.split_once(':').context("must be a line `Name: value`")?;
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| anyhow::anyhow!("must be a line `Name: value`; what is before the colon is no header's name"))?;
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|_| anyhow::anyhow!("the value of the header has bytes that no header may have"))?;
    ensure!(!value.is_empty(), "the header has no value");
    value.set_sensitive(true);
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn line_is_a_header_and_nothing_else_is() {
        let (name, value) = parse("Authorization: Bearer a:b\n").unwrap();
        assert_eq!(
            (name.as_str(), value.to_str().unwrap()),
            ("authorization", "Bearer a:b")
        );
        assert!(!format!("{value:?}").contains("a:b"));
        for text in [
            "",
            "secret",
            "secret secret: x",
            ":secret",
            "X:",
            "X: secret\nY: secret",
            "X: secret\u{7f}",
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(!error.contains("secret"), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn header_of_any_text_is_read_without_a_panic(text in r"[A-Za-z-]{0,5}:?\PC*|(?s).*") {
            let _ = parse(&text);
        }
    }
}
