//! Fuzz targets: image references, Docker's config.json, and the helpers that it names.

use super::image::ImageRef;
use super::registry::ConfigFile;
use super::registry::config_file::helper_answer;

/// Splits an image reference, as the configuration has it.
pub(crate) fn image(text: &str) {
    let ImageRef { registry, tag, name } = ImageRef::parse(text);
    assert!(text.starts_with(name) && !tag.contains('/'));
    assert!(registry == "docker.io" || text.starts_with(registry));
}

/// Reads a config.json; an error quotes no credentials, of which this has none.
pub(crate) fn config_file(text: &str) {
    if let Err(problem) = ConfigFile::parse(text) {
        assert!(!problem.is_empty());
    }
}

/// Reads what a credential helper prints: a password with its user, or a token.
pub(crate) fn helper(text: &str) {
    if let Some(told) = helper_answer(text) {
        assert!(
            told.username.is_some() == told.password.is_some()
                && told.password.is_some() != told.identitytoken.is_some()
        );
    }
}
