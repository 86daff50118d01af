//! Fuzz targets: image references, and Docker's config.json.

use super::image::ImageRef;
use super::registry::ConfigFile;

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
