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
    /// every one that a container has, whosever that is. Returns the ids of those that are gone.
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
        let repository = ImageRef::parse(image).repository().to_owned();
        let filters = HashMap::from([("reference", vec![repository])]);
        let options = ListImagesOptionsBuilder::new().filters(&filters).build();
        let images = bounded(CALL_TIMEOUT, self.client.list_images(Some(options)))
            .await
            .context("failed to list the images of the container's repository")?;
        let mut gone = Vec::new();
        for id in superfluous(images, &used, keep) {
            // Without force: dockerd refuses for one that a container has had since.
            self.remove_image(&id).await?;
            gone.push(id);
        }
        Ok(gone)
    }

    /// Removes an image, unless something else uses it.
    async fn remove_image(&self, image: &str) -> Result<()> {
        let call = self.client.remove_image(image, None::<RemoveImageOptions>, None);
        absent_is_none(bounded(CALL_TIMEOUT, call).await)
            .with_context(|| format!("failed to remove the image {image}"))?;
        Ok(())
    }
}

/// The ids of images that are not used, but for the last `keep`.
fn superfluous(mut images: Vec<ImageSummary>, used: &BTreeSet<String>, keep: usize) -> Vec<String> {
    images.retain(|image| !used.contains(&image.id));
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    images.into_iter().skip(keep).map(|image| image.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_stay_and_all_that_is_used() {
        let images = |ids: [(&str, i64); 4]| {
            let image = |(id, created): (&str, i64)| ImageSummary {
                id: id.to_owned(),
                created,
                ..ImageSummary::default()
            };
            ids.map(image).to_vec()
        };
        let images = images([("first", 1), ("current", 4), ("third", 3), ("second", 2)]);
        let used = BTreeSet::from(["current".to_owned()]);
        assert_eq!(superfluous(images.clone(), &used, 1), ["second", "first"]);
        assert_eq!(superfluous(images.clone(), &used, 3), [""; 0]);
        let used = BTreeSet::from(["current".to_owned(), "first".to_owned()]);
        assert_eq!(superfluous(images, &used, 0), ["third", "second"]);
    }
}
