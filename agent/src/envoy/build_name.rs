//! The name of a build of Envoy, which has its version.

use anyhow::{Context, Result};

/// Takes the version out of a build's name, `<commit>/1.40.0/Clean/RELEASE/BoringSSL`.
pub(super) fn parse_version(text: &str) -> Result<String> {
    let version = text.trim().split('/').nth(1);
    let version = version.filter(|version| version.starts_with(|first: char| first.is_ascii_digit()));
    Ok(version
        .with_context(|| format!("{:?} is no version of Envoy", text.trim()))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_of_releases_and_of_istios_builds_and_of_nothing_else() {
        let release = "\n9e55809/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(parse_version(release).unwrap(), "1.40.0");
        let istio = "73fe00fc139fd5053f4c4a5d66569cc254449896/1.39.0-dev/Clean/RELEASE/BoringSSL";
        assert_eq!(parse_version(istio).unwrap(), "1.39.0-dev");
        for text in ["", "1.40.0", "a/", "a/b/c"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }
}
