//! Fuzz target: image references.

use super::image::ImageRef;

/// Splits an image reference, as the configuration has it.
pub(crate) fn image(text: &str) {
    let ImageRef { registry, tag, name } = ImageRef::parse(text);
    assert!(text.starts_with(name) && !tag.contains('/'));
    assert!(registry == "docker.io" || text.starts_with(registry));
}
