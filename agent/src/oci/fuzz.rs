//! Fuzz targets: what a registry sends, and the name by which it is asked.

use super::challenge::Challenge;
use super::client;
use super::manifest::Manifest;
use super::reference::{Reference, hex_of};

/// Takes a reference apart: what goes into a URL stays in its path.
pub(crate) fn reference(text: &str) {
    if let Ok(reference) = Reference::parse(text) {
        let parts = [&reference.registry, &reference.repository, &reference.version];
        let is_plain = |part: &str| !part.is_empty() && !part.contains(['?', '#', '@', '%', ' ', '\\']);
        assert!(parts.iter().all(|part| is_plain(part)) && !reference.repository.contains(".."));
    }
}

/// Parses a manifest: every digest in it is one.
pub(crate) fn manifest(text: &str) {
    match Manifest::parse(text, "x86_64") {
        Ok(Manifest::Image(layers)) => assert!(layers.iter().all(|layer| hex_of(&layer.digest).is_ok())),
        Ok(Manifest::Index(digest)) => assert!(hex_of(&digest).is_ok()),
        Err(_) => {}
    }
}

/// Parses the header by which a registry asks for a login.
pub(crate) fn challenge(text: &str) {
    if let Some(Challenge::Bearer { realm, .. }) = Challenge::parse(text) {
        assert!(text.contains(&realm));
    }
}

/// Parses a token server's answer: what goes into a header is of one line.
pub(crate) fn token(text: &str) {
    if let Some(header) = client::bearer(text) {
        let token = header.expose().strip_prefix("Bearer ").unwrap_or_default();
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
