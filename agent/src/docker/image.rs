//! Image references. Pure.

/// An image reference, split as Docker does (distribution/reference).
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct ImageRef<'a> {
    /// `host[:port]` of the registry.
    pub(crate) registry: &'a str,
    /// The tag to ask for; empty for a digest, which is part of the name then.
    pub(crate) tag: &'a str,
    /// The name to pull: without a tag, with a digest.
    pub(crate) name: &'a str,
}

impl<'a> ImageRef<'a> {
    pub(crate) fn parse(image: &'a str) -> Self {
        let registry = image
            .split_once('/')
            .map(|(first, _)| first)
            .filter(|first| first.contains(['.', ':']) || *first == "localhost")
            .unwrap_or("docker.io");
        let (name, tag) = match image.rsplit_once(':') {
            _ if image.contains('@') => (image, ""),
            // A colon before a slash is the registry's port.
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            // Without a tag Docker would pull all of them.
            _ => (image, "latest"),
        };
        Self { registry, tag, name }
    }

    /// The name without a tag and without a digest.
    pub(crate) fn repository(&self) -> &'a str {
        let name = self.name.split_once('@').map_or(self.name, |(name, _)| name);
        match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => repository,
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_reference_is_split_as_docker_does() {
        let cases = [
            ("web", "docker.io", "web", "latest"),
            ("team/web:2", "docker.io", "team/web", "2"),
            ("localhost/web", "localhost", "localhost/web", "latest"),
            ("10.0.0.1:5000/a/web", "10.0.0.1:5000", "10.0.0.1:5000/a/web", "latest"),
            ("10.0.0.1:5000/web:3", "10.0.0.1:5000", "10.0.0.1:5000/web", "3"),
            ("r.example/web@sha256:00", "r.example", "r.example/web@sha256:00", ""),
            (
                "r.example/web:1@sha256:00",
                "r.example",
                "r.example/web:1@sha256:00",
                "",
            ),
        ];
        for (image, registry, name, tag) in cases {
            assert_eq!(ImageRef::parse(image), ImageRef { registry, tag, name }, "{image}");
            let repository = ImageRef::parse(image).repository();
            assert!(!repository.contains('@') && image.starts_with(repository), "{image}");
            assert!(repository.ends_with("web"), "{repository}");
        }
    }
}
