//! Manifests, of Docker and of OCI alike (opencontainers/image-spec; distribution, manifest v2 schema 2). Pure.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::reference::hex_of;

/// The media types that a registry is asked for.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// The longest manifest that is read, in bytes; the distribution-spec has registries take that much.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// The most layers of an image: Docker's limit.
const MAX_LAYERS: usize = 127;

/// A blob of an image.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
pub(crate) struct Layer {
    /// `sha256:…` of its bytes as they come.
    pub(super) digest: String,
    /// Bytes as they come.
    pub(crate) size: u64,
}

/// Either kind of manifest.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Manifest {
    /// The manifest of an image: its layers, the lowest first.
    Image(Vec<Layer>),
    /// The index of several images: the digest of the one for this kind of machine.
    Index(String),
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    layers: Vec<Layer>,
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    platform: Platform,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
}

impl Manifest {
    /// Parses a manifest for a machine of `architecture`, as Rust's `std::env::consts::ARCH` calls it.
    ///
    /// # Errors
    /// When it has no image for that, or something in it is out of bounds.
    pub(super) fn parse(text: &str, architecture: &str) -> Result<Self> {
        let document: Document = serde_json::from_str(text).context("it is no manifest")?;
        if document.manifests.is_empty() {
            ensure!(
                (1..=MAX_LAYERS).contains(&document.layers.len()),
                "it has {} layers, and is no image",
                document.layers.len()
            );
            for layer in &document.layers {
                hex_of(&layer.digest)?;
            }
            return Ok(Self::Image(document.layers));
        }
        let ours = architecture_in_images(architecture);
        let mut entries = document.manifests.into_iter();
        let entry = entries.find(|entry| entry.platform.os == "linux" && entry.platform.architecture == ours);
        let Some(entry) = entry else {
            bail!("it has no image for linux/{ours}");
        };
        hex_of(&entry.digest)?;
        Ok(Self::Index(entry.digest))
    }
}

/// Go's name, which images have.
fn architecture_in_images(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: &str) -> String {
        format!("sha256:{}", byte.repeat(32))
    }

    #[test]
    fn manifest_is_an_image_or_leads_to_the_one_for_this_machine() {
        let (one, other) = (digest("aa"), digest("bb"));
        let image = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{one}","size":1}},"layers":[{{"mediaType":"m","digest":"{one}","size":7}}]}}"#
        );
        let layers = vec![Layer {
            digest: one.clone(),
            size: 7,
        }];
        assert_eq!(Manifest::parse(&image, "x86_64").unwrap(), Manifest::Image(layers));

        let entry = |digest: &str, os: &str, architecture: &str| {
            format!(r#"{{"digest":"{digest}","size":1,"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#)
        };
        let entries = [
            entry(&digest("cc"), "unknown", "unknown"),
            entry(&one, "linux", "amd64"),
            entry(&other, "linux", "arm64"),
        ];
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        assert_eq!(Manifest::parse(&index, "x86_64").unwrap(), Manifest::Index(one));
        assert_eq!(Manifest::parse(&index, "aarch64").unwrap(), Manifest::Index(other));
        let error = Manifest::parse(&index, "riscv64").unwrap_err().to_string();
        assert_eq!(error, "it has no image for linux/riscv64");
    }

    #[test]
    fn manifest_of_something_else_is_refused() {
        let layer = format!(r#"{{"digest":"{}","size":1}}"#, digest("aa"));
        let many = vec![layer; MAX_LAYERS + 1].join(",");
        for text in [
            "",
            "{}",
            r#"{"layers":[]}"#,
            r#"{"layers":[{"digest":"../../x","size":1}]}"#,
            r#"{"layers":[{"digest":"sha512:00","size":1}]}"#,
            r#"{"layers":[{"digest":"sha256:00","size":-1}]}"#,
            &format!(r#"{{"layers":[{many}]}}"#),
        ] {
            assert!(Manifest::parse(text, "x86_64").is_err(), "{text:.60}");
        }
    }
}
