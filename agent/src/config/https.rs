//! `join.https`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::{Checks, duration, public_key};
use crate::facts::{is_host_name, is_of_a_machine};

/// Looking more often gains nothing: nothing in a mesh's configuration changes within seconds.
const MIN_POLL: Duration = Duration::from_secs(5);
/// Roots and labels that have changed are to arrive within a day.
const MAX_POLL: Duration = Duration::from_secs(24 * 60 * 60);

/// The five files below a URL.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HttpsConfig {
    /// The folder with cluster.env, mesh.yaml, root-cert.pem, hosts and istio-token.
    pub url: String,
    /// Certificates of the server's CA, PEM; absent: those that the VM trusts.
    pub ca_file: Option<PathBuf>,
    /// A file with one line, `Name: value`, that every request carries; for nobody but its owner to read.
    pub header_file: Option<PathBuf>,
    /// The public key of whoever signs the files; absent: they need no signature.
    pub public_key: Option<String>,
    /// Time between two questions to the server, before jitter.
    #[serde(default = "default_poll", with = "duration")]
    pub poll: Duration,
}

fn default_poll() -> Duration {
    Duration::from_secs(60)
}

impl HttpsConfig {
    pub(super) fn checks(&self) -> Checks {
        let paths = [("ca_file", &self.ca_file), ("header_file", &self.header_file)];
        let mut checks = vec![
            https_url("join.https.url", &self.url),
            public_key::check("join.https.public_key", self.public_key.as_deref()),
            match (MIN_POLL..=MAX_POLL).contains(&self.poll) {
                true => Ok(()),
                false => Err(format!(
                    "join.https.poll = \"{}\": must be {} or more, and {} or less",
                    format_duration(self.poll),
                    format_duration(MIN_POLL),
                    format_duration(MAX_POLL)
                )),
            },
        ];
        checks.extend(paths.into_iter().filter_map(|(key, path)| {
            let path = path.as_ref()?;
            Some(super::absolute(&format!("join.https.{key}"), path))
        }));
        checks
    }
}

/// A URL that something can be put below, and that holds no secret: URLs are logged.
pub(super) fn https_url(key: &str, text: &str) -> Result<(), String> {
    let wrong = |problem: &str| Err(format!("{key} = {text:?}: {problem}"));
    let Some(url) = url_of(text) else {
        // Not quoted: what is no URL may still hold a password.
        return Err(format!("{key}: is no URL such as https://host/folder/"));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{key}: a URL is no place for a password; put it into a header_file"
        ));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!(
            "{key}: must end with a path; what follows '?' or '#' has no place in it"
        ));
    }
    match url.scheme() {
        "https" => Ok(()),
        _ => wrong("must be https://, or the token would go in plain text"),
    }
}

/// The URL, if everybody reads `text` as the same: a host of digits with other signs or a leading 0 is another address to
/// whoever counts in octal, and blanks are dropped.
pub(super) fn url_of(text: &str) -> Option<Url> {
    let url = Url::parse(text)
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_graphic()))?;
    let host = url.host_str().filter(|host| !host.is_empty())?;
    let lower = text.to_ascii_lowercase();
    let is_written = ["://", "@"].iter().any(|sign| lower.contains(&format!("{sign}{host}")));
    let is_host = match host.parse::<IpAddr>() {
        Ok(ip) => is_written && is_of_a_machine(ip),
        Err(_) => host.starts_with('[') || is_written && is_host_name(host),
    };
    (is_host && url.port() != Some(0)).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn https_url_has_tls_and_no_secret() {
        let check = |url| https_url("join.https.url", url);
        check("https://bundles.example:8443/shop/catalog").unwrap();
        for (url, expected) in [
            ("http://bundles.example/", "must be https://"),
            ("bundles.example/shop", "is no URL"),
            ("https://", "is no URL"),
            ("https://joe:secret@bundles.example/", "no place for a password"),
            ("https://bundles.example/?sig=secret", "no place in it"),
            ("https://bundles.example/#secret", "no place in it"),
        ] {
            let error = check(url).unwrap_err();
            assert!(
                error.starts_with("join.https.url") && error.contains(expected),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
