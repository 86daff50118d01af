//! Images that a configuration names.

use crate::facts::{is_digest, is_image};

/// The reason why `image` is none that Docker and a registry could be asked for.
pub(super) fn problem(image: &str) -> Option<&'static str> {
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    match image {
        "" => Some("is empty: write NAME:TAG, or NAME@sha256:…"),
        _ if image.contains(is_blank) => Some("has a blank, and no image's name has: remove it"),
        _ if image.contains("://") => Some("is a URL: leave out what comes before the registry's host"),
        _ if image.contains('@') && digest_of(image).is_none() => Some(
            "does not end with a digest, @sha256: and 64 hexadecimal digits: `docker buildx imagetools inspect NAME:TAG` \
             prints it",
        ),
        _ if !is_image(image) => Some(
            "is no name of an image: it has a-z, 0-9 and '-', '.', '_' between them, after a registry's host if any, and \
             one tag, such as \"registry.example/web:1.0\"",
        ),
        _ => None,
    }
}

/// The hex of a reference's digest.
pub(super) fn digest_of(image: &str) -> Option<&str> {
    let (name, digest) = image.split_once('@')?;
    digest
        .strip_prefix("sha256:")
        .filter(|_| !name.is_empty() && is_digest(digest))
}

/// True for a reference with a tag or a digest; a port of the registry is neither.
pub(super) fn is_pinned(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    let has_tag = |(name, tag): (&str, &str)| !name.is_empty() && !tag.is_empty();
    digest_of(image).is_some() || name.split_once(':').is_some_and(has_tag)
}
