//! References of images, as URLs of a registry have them. Pure.

use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};

use crate::docker::ImageRef;
use crate::facts::{is_digest, is_image};

/// Docker Hub's registry, whose images have another host in their names (distribution/reference).
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");
const DIGEST: &str = "sha256:";

/// An image's reference, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Reference {
    /// `host[:port]` that is asked.
    pub(super) registry: String,
    /// Name of the repository in its registry.
    pub(super) repository: String,
    /// The digest, and where there is none the tag.
    pub(super) version: String,
}

impl Reference {
    /// Fails when a registry would take it for something else than one image.
    pub(super) fn parse(image: &str) -> Result<Self> {
        ensure!(
            is_image(image),
            "{image:?} is no reference of an image: it is registry.example/NAME:TAG, or NAME@sha256: and 64 hexadecimal characters"
        );
        let split = ImageRef::parse(image);
        let (name, digest) = match split.name.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (split.name, None),
        };
        let path = name
            .strip_prefix(split.registry)
            .and_then(|rest| rest.strip_prefix('/'));
        // Beside a digest a tag says nothing.
        let path = path.unwrap_or(name).split(':').next().unwrap_or_default();
        let version = digest.unwrap_or(split.tag);
        let is_hub = split.registry == DOCKER_HUB.0;
        Ok(Self {
            registry: if is_hub { DOCKER_HUB.1 } else { split.registry }.to_owned(),
            repository: match is_hub && !path.contains('/') {
                true => format!("library/{path}"),
                false => path.to_owned(),
            },
            version: version.to_owned(),
        })
    }

    /// True for a registry on this VM, which needs no TLS: nobody stands between it and us.
    pub(super) fn is_local(&self) -> bool {
        is_loopback(host_of(&self.registry))
    }

    /// The URL below which the repository is.
    pub(super) fn url(&self) -> String {
        let scheme = if self.is_local() { "http" } else { "https" };
        format!("{scheme}://{}/v2/{}", self.registry, self.repository)
    }
}

/// The hex of a digest.
///
/// # Errors
/// When it is of another algorithm than SHA-256, or none.
pub(super) fn hex_of(digest: &str) -> Result<&str> {
    if !is_digest(digest) {
        bail!("{digest:?} is no SHA-256 digest");
    }
    digest.strip_prefix(DIGEST).context("it is no digest")
}

/// The digest with this hex.
pub(super) fn digest(hex: &str) -> String {
    format!("{DIGEST}{hex}")
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_is_what_a_registry_is_asked_for() {
        let digest = digest(&"ab".repeat(32));
        let by_digest = format!("r.example:5000/a/web:1@{digest}");
        let cases = [
            ("web", "https://registry-1.docker.io/v2/library/web", "latest"),
            (
                "docker.io/istio/proxyv2:1.30.0",
                "https://registry-1.docker.io/v2/istio/proxyv2",
                "1.30.0",
            ),
            ("127.0.0.1:5000/web:2", "http://127.0.0.1:5000/v2/web", "2"),
            ("localhost/web", "http://localhost/v2/web", "latest"),
            (by_digest.as_str(), "https://r.example:5000/v2/a/web", digest.as_str()),
        ];
        for (image, url, version) in cases {
            let found = Reference::parse(image).unwrap();
            assert_eq!(
                (found.url().as_str(), found.version.as_str()),
                (url, version),
                "{image}"
            );
        }
        for image in [
            "",
            "r.example/",
            "r.example/../web",
            "r.example/Web",
            "r.example/web:a b",
            "r.example/web@sha256:00",
            "r.example/web?x",
            "me@r.example/web",
            "r.example/web:",
        ] {
            assert!(Reference::parse(image).is_err(), "{image}");
        }
    }
}
