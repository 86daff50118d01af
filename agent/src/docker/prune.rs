//! Images that nothing uses any more.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context, Result};
use bollard::models::ImageSummary;
use bollard::query_parameters::{ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions};

use super::call::{CALL_TIMEOUT, absent_is_none, bounded};
use super::engine::Engine;
use super::image::ImageRef;

impl Engine {
    /// Removes images of the same repository as `image`, which stays, and so do the `keep` last built of the others and
    /// every one that a container has, whosever that is. Returns the ids of those that are gone, or that only another
    /// repository names still.
    ///
    /// # Errors
    /// The first of an image that stays against that; the others are gone all the same.
    pub(crate) async fn prune(&self, image: &str, keep: usize) -> Result<Vec<String>> {
        let current = bounded(CALL_TIMEOUT, self.client.inspect_image(image))
            .await
            .with_context(|| format!("failed to look for the image {image}"))?;
        let mut used: BTreeSet<String> = current.id.into_iter().collect();
        let all = ListContainersOptionsBuilder::new().all(true).build();
        let containers = bounded(CALL_TIMEOUT, self.client.list_containers(Some(all)))
            .await
            .context("failed to list the containers, whose images stay")?;
        used.extend(containers.into_iter().filter_map(|container| container.image_id));
        let repository = familiar(ImageRef::parse(image).repository());
        let filters = HashMap::from([("reference", vec![repository.to_owned()])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images = bounded(CALL_TIMEOUT, self.client.list_images(Some(options)))
            .await
            .context("failed to list the images of the container's repository")?;
        let (mut gone, mut failure) = (Vec::new(), None);
        for image in superfluous(images, &used, keep) {
            match self.remove_names(&names(&image, repository)).await {
                Ok(()) => gone.push(image.id),
                // One that dockerd won't remove, now or ever, keeps no other.
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            None => Ok(gone),
            Some(error) if gone.is_empty() => Err(error),
            Some(error) => {
                tracing::info!(images = gone.join(" "), "removed earlier images of {repository}");
                Err(error)
            }
        }
    }

    async fn remove_names(&self, names: &[String]) -> Result<()> {
        for name in names {
            // Without force: dockerd refuses for one that a container has had since.
            self.remove_image(name).await?;
        }
        Ok(())
    }

    /// Removes an image, unless something else uses it.
    async fn remove_image(&self, image: &str) -> Result<()> {
        let call = self.client.remove_image(image, None::<RemoveImageOptions>, None);
        absent_is_none(bounded(CALL_TIMEOUT, call).await)
            .with_context(|| format!("failed to remove the image {image}"))?;
        Ok(())
    }
}

/// A repository as dockerd's filters and lists have it: without Docker Hub's name (distribution/reference, FamiliarName).
fn familiar(repository: &str) -> &str {
    let on_hub = ["docker.io/", "index.docker.io/"]
        .iter()
        .find_map(|hub| repository.strip_prefix(hub));
    let name = on_hub.unwrap_or(repository);
    match name.strip_prefix("library/") {
        Some(official) if !official.contains('/') => official,
        _ => name,
    }
}

/// The names by which an image is removed: its tags of this repository, else its digests of it, for dockerd refuses the id of
/// one that has several, or another repository's beside; its id where it has none. The last name that goes takes the image
/// with it.
fn names(image: &ImageSummary, repository: &str) -> Vec<String> {
    let of_it = |names: &[String], end: char| -> Vec<String> {
        let is_of_it = |name: &&String| {
            let name = name.rsplit_once(end).map(|(name, _)| familiar(name));
            name == Some(repository)
        };
        names.iter().filter(is_of_it).cloned().collect()
    };
    let (tags, digests) = (of_it(&image.repo_tags, ':'), of_it(&image.repo_digests, '@'));
    match (tags.is_empty(), digests.is_empty()) {
        (false, _) => tags,
        (true, false) => digests,
        (true, true) => vec![image.id.clone()],
    }
}

/// The images that are not used, but for the last `keep`.
fn superfluous(mut images: Vec<ImageSummary>, used: &BTreeSet<String>, keep: usize) -> Vec<ImageSummary> {
    images.retain(|image| !used.contains(&image.id));
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    images.into_iter().skip(keep).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_ones_stay_and_all_that_is_used() {
        let images = |ids: [(&str, i64); 4]| {
            let image = |(id, created): (&str, i64)| ImageSummary {
                id: id.to_owned(),
                created,
                ..ImageSummary::default()
            };
            ids.map(image).to_vec()
        };
        let images = images([("first", 1), ("current", 4), ("third", 3), ("second", 2)]);
        let ids = |used: &BTreeSet<String>, keep| {
            let images = superfluous(images.clone(), used, keep).into_iter();
            images.map(|image| image.id).collect::<Vec<_>>()
        };
        let used = BTreeSet::from(["current".to_owned()]);
        assert_eq!(ids(&used, 1), ["second", "first"]);
        assert_eq!(ids(&used, 3), [""; 0]);
        let used = BTreeSet::from(["current".to_owned(), "first".to_owned()]);
        assert_eq!(ids(&used, 0), ["third", "second"]);
    }

    #[test]
    fn repository_is_named_as_dockerd_does() {
        for (repository, name) in [
            ("docker.io/library/web", "web"),
            ("docker.io/team/web", "team/web"),
            ("index.docker.io/team/web", "team/web"),
            ("library/web", "web"),
            ("web", "web"),
            ("r.example:5000/library/web", "r.example:5000/library/web"),
        ] {
            assert_eq!(familiar(repository), name, "{repository}");
        }
    }

    #[test]
    fn image_is_removed_by_its_tags_of_the_repository() {
        let image = |tags: &[&str]| ImageSummary {
            id: "sha256:00".to_owned(),
            repo_tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            ..ImageSummary::default()
        };
        let repository = "r.example:5000/web";
        let by_digest = ImageSummary {
            repo_digests: vec!["other@sha256:11".to_owned(), "r.example:5000/web@sha256:11".to_owned()],
            ..image(&["other:1"])
        };
        assert_eq!(names(&by_digest, repository), ["r.example:5000/web@sha256:11"]);
        let named = |tags: &[&str]| names(&image(tags), repository);
        assert_eq!(named(&[]), ["sha256:00"]);
        assert_eq!(named(&["<none>:<none>"]), ["sha256:00"]);
        assert_eq!(named(&["r.example:5000/web:1"]), ["r.example:5000/web:1"]);
        assert_eq!(
            named(&["r.example:5000/web:1", "other:1", "r.example:5000/web:2"]),
            ["r.example:5000/web:1", "r.example:5000/web:2"]
        );
    }
}
