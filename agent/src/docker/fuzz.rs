//! What holds of image references, whatever they are.

use super::image::ImageRef;

/// An image, as the configuration names it.
pub(crate) fn image(text: &str) {
    let ImageRef { registry, tag, name } = ImageRef::parse(text);
    assert!(text.starts_with(name) && !tag.contains('/'));
    assert!(registry == "docker.io" || text.starts_with(registry));
}
