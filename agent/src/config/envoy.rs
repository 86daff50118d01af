//! `[envoy]`.

use std::fmt;
use std::path::{Component, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::https::url_of;
use super::layout::LONGEST_SOCKET;
use super::{Checks, absolute, did_you_mean, duration, image, ports};

/// Where Istio's packages and images have Envoy.
const DEFAULT_BINARY: &str = "/usr/local/bin/envoy";
/// Envoy's own.
pub(crate) const LEVELS: [&str; 7] = ["trace", "debug", "info", "warning", "error", "critical", "off"];
/// More threads than any machine has cores for.
const MOST_THREADS: u32 = 1024;
/// Hexadecimal characters of a SHA-256.
const SHA256_LENGTH: usize = 64;

/// `[envoy]`. At most one of `binary`, `image` and `url` is there; `source` says which.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct EnvoyConfig {
    /// The program, put there by the operator.
    pub binary: Option<PathBuf>,
    /// An image that the program is taken out of, by digest.
    pub image: Option<String>,
    /// Docker's config.json with the login of the registry, for `image`.
    pub registry_config: Option<PathBuf>,
    /// Where the program, or a gzipped tar archive with it, is downloaded from.
    pub url: Option<String>,
    /// SHA-256 of the download, in hex.
    pub sha256: Option<String>,
    /// PEM certificates to trust for `image` or `url` instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// TCP port of the admin interface on 127.0.0.1; absent: a unix socket in the run directory.
    pub admin_port: Option<u16>,
    /// Unix sockets of this VM that the mesh's configuration may lead Envoy to: an absolute path, or `@` and an abstract
    /// name.
    pub unix_sockets: Vec<PathBuf>,
    /// `trace`, `debug`, `info`, `warning`, `error`, `critical` or `off`.
    pub log_level: String,
    /// Lines of the access log that are passed on in a second; more are dropped and counted.
    pub access_log_rate: u32,
    /// Lines a second of Envoy's own log below a warning that are passed on.
    pub log_rate: u32,
    /// Worker threads; absent: one per core.
    pub concurrency: Option<u32>,
    /// Starts within ten minutes before the agent slows down to one every 30 s and says so; it never gives up.
    pub restart_budget: u32,
    /// Longest time that Envoy is given to end its connections; absent: ProxyConfig's
    /// terminationDrainDuration, and its drainDuration while requests are in flight.
    #[serde(with = "duration::optional")]
    pub drain: Option<Duration>,
}

impl Default for EnvoyConfig {
    fn default() -> Self {
        Self {
            binary: None,
            image: None,
            registry_config: None,
            url: None,
            sha256: None,
            ca_file: None,
            admin_port: None,
            unix_sockets: Vec::new(),
            log_level: "warning".to_owned(),
            access_log_rate: 200,
            log_rate: 25,
            concurrency: None,
            restart_budget: 10,
            drain: None,
        }
    }
}

/// Where Envoy's program comes from. Displayed as the operator knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EnvoySource {
    /// A program that is there.
    Binary(PathBuf),
    /// Taken out of an image.
    Image {
        /// With its digest.
        reference: String,
        /// The digest's hex.
        sha256: String,
        /// Docker's config.json with the login of the registry.
        registry_config: Option<PathBuf>,
        /// Trusted instead of the system's certificates.
        ca_file: Option<PathBuf>,
    },
    /// Downloaded.
    Url {
        /// https.
        url: String,
        /// SHA-256 of the download, lower-case hex.
        sha256: String,
        /// Trusted instead of the system's certificates.
        ca_file: Option<PathBuf>,
    },
}

impl fmt::Display for EnvoySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(path) => write!(f, "envoy.binary {}", path.display()),
            Self::Image { reference, .. } => write!(f, "envoy.image {reference}"),
            Self::Url { url, .. } => write!(f, "envoy.url {url}"),
        }
    }
}

impl EnvoyConfig {
    /// Where the program comes from.
    pub fn source(&self) -> EnvoySource {
        match (&self.image, &self.url) {
            (Some(reference), _) => EnvoySource::Image {
                reference: reference.clone(),
                sha256: image::digest_of(reference).unwrap_or_default().to_owned(),
                registry_config: self.registry_config.clone(),
                ca_file: self.ca_file.clone(),
            },
            (None, Some(url)) => EnvoySource::Url {
                url: url.clone(),
                sha256: self.sha256.as_deref().unwrap_or_default().to_ascii_lowercase(),
                ca_file: self.ca_file.clone(),
            },
            (None, None) => EnvoySource::Binary(self.binary.clone().unwrap_or_else(|| DEFAULT_BINARY.into())),
        }
    }

    pub(super) fn checks(&self) -> Checks {
        vec![
            self.check_source(),
            self.check_log_level(),
            self.check_port(),
            self.check_unix_sockets(),
            self.check_numbers(),
        ]
    }

    fn check_log_level(&self) -> Result<(), String> {
        let level = self.log_level.as_str();
        match LEVELS.contains(&level) {
            true => Ok(()),
            false => Err(format!(
                "envoy.log_level = {level:?}: must be one of {}{}",
                LEVELS.join(", "),
                did_you_mean(level, LEVELS)
            )),
        }
    }

    fn check_port(&self) -> Result<(), String> {
        let Some(port) = self.admin_port else { return Ok(()) };
        ports::check_free(port).map_err(|problem| {
            format!("envoy.admin_port = {port}: {problem}, such as 15000, or leave it out for a unix socket")
        })
    }

    fn check_unix_sockets(&self) -> Result<(), String> {
        const KEY: &str = "envoy.unix_sockets";
        self.unix_sockets.iter().try_for_each(|path| {
            if path.as_os_str().len() > LONGEST_SOCKET {
                return Err(format!(
                    "{KEY} = {path:?}: has more than {LONGEST_SOCKET} bytes, which no unix socket's path may have"
                ));
            }
            match path.as_os_str().as_encoded_bytes() {
                [b'@', _, ..] => Ok(()),
                _ if path.components().any(|part| part == Component::ParentDir) => Err(format!(
                    "{KEY} = {path:?}: has `..`: write it as istiod does, which is compared byte for byte"
                )),
                _ => absolute(KEY, path),
            }
        })
    }

    fn check_numbers(&self) -> Result<(), String> {
        if let Some(threads) = self.concurrency.filter(|threads| !(1..=MOST_THREADS).contains(threads)) {
            return Err(format!(
                "envoy.concurrency = {threads}: must be from 1 to {MOST_THREADS}, or absent for one thread per core"
            ));
        }
        match self.restart_budget {
            0 => Err("envoy.restart_budget = 0: must be at least 1, such as 10".to_owned()),
            _ => Ok(()),
        }
    }

    fn check_source(&self) -> Result<(), String> {
        let given = [self.binary.is_some(), self.image.is_some(), self.url.is_some()];
        if given.into_iter().filter(|given| *given).count() > 1 {
            return Err("envoy.binary, envoy.image and envoy.url: only one of them can be there".to_owned());
        }
        for (key, path) in [
            ("envoy.binary", &self.binary),
            ("envoy.ca_file", &self.ca_file),
            ("envoy.registry_config", &self.registry_config),
        ] {
            path.as_ref().map_or(Ok(()), |path| absolute(key, path))?;
        }
        if let Some(image) = &self.image {
            let unpinned = image::digest_of(image).is_none().then_some(
                "must end with the image's digest, @sha256:… (`docker buildx imagetools inspect` prints it), for a tag can \
                 move",
            );
            if let Some(problem) = unpinned.or_else(|| image::problem(image)) {
                return Err(format!("envoy.image = {image:?}: {problem}"));
            }
        }
        if self.registry_config.is_some() && self.image.is_none() {
            return Err("envoy.registry_config: there is no envoy.image that it could be for".to_owned());
        }
        match (&self.url, &self.sha256) {
            (Some(url), _) if !is_https(url) => Err(format!(
                "envoy.url = {url:?}: must be https://host/…, without a user name"
            )),
            (Some(_), Some(sha256)) if is_sha256(sha256) => Ok(()),
            (Some(_), Some(sha256)) => Err(format!(
                "envoy.sha256 = {sha256:?}: must be {SHA256_LENGTH} hexadecimal characters, as `sha256sum` prints them"
            )),
            (Some(_), None) => Err("envoy.url: envoy.sha256 is missing, which pins what is downloaded".to_owned()),
            (None, Some(_)) => Err("envoy.sha256: there is no envoy.url that it could be of".to_owned()),
            (None, None) if self.ca_file.is_some() && self.image.is_none() => {
                Err("envoy.ca_file: there is no envoy.url or envoy.image that it could be for".to_owned())
            }
            (None, None) => Ok(()),
        }
    }
}

fn is_sha256(text: &str) -> bool {
    text.len() == SHA256_LENGTH && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Tells whether a text is an https URL without a secret in it that every error would show.
fn is_https(url: &str) -> bool {
    url_of(url).is_some_and(|url| url.scheme() == "https" && url.username().is_empty() && url.password().is_none())
}
