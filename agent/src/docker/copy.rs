//! Files out of an image, or out of a container.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, InspectContainerOptions,
    RemoveContainerOptionsBuilder, RemoveImageOptions,
};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::call::{CALL_TIMEOUT, absent_is_none, bounded};
use super::engine::Engine;
use super::mark::new_labels;
use super::registry::{Credentials, Registries};

/// The name of the container that is made for a copy and never started. It is always the same, so that the leftover of
/// a crash is found again.
const COPY_CONTAINER: &str = "istio-vm-agent-copy";
/// The time without progress after which a copy fails.
const COPY_STALL_TIMEOUT: Duration = Duration::from_secs(60);

impl Engine {
    /// Hands `take` the tar archive of the file `path` of an image that is here, piece by piece.
    ///
    /// Docker has files of containers only, so it makes one, never starts it, and removes it in the end. Where
    /// this is dropped before, `remove_copy` does.
    pub(crate) async fn copy_out(
        &self,
        image: &str,
        path: &str,
        take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<()> {
        self.remove_copy().await?;
        let options = CreateContainerOptionsBuilder::new().name(COPY_CONTAINER).build();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            // An image without a command of its own needs one, although nothing runs it.
            cmd: Some(vec![path.to_owned()]),
            labels: Some(new_labels()),
            network_disabled: Some(true),
            ..ContainerCreateBody::default()
        };
        let made = bounded(CALL_TIMEOUT, self.client.create_container(Some(options), body))
            .await
            .with_context(|| format!("failed to create a container of {image}"))?;
        let copied = self
            .archive(&made.id, path, take)
            .await
            .with_context(|| format!("failed to take {path} out of {image}"));
        let removed = self.remove_copy().await;
        copied.and(removed)
    }

    /// Hands `take` the tar archive of a container's file, piece by piece; the container need not run.
    pub(crate) async fn archive(
        &self,
        container: &str,
        path: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<()> {
        let options = DownloadFromContainerOptionsBuilder::new().path(path).build();
        let pieces = self.client.download_from_container(container, Some(options));
        tokio::pin!(pieces);
        loop {
            match timeout(COPY_STALL_TIMEOUT, pieces.next()).await {
                Ok(Some(piece)) => take(&piece?)?,
                Ok(None) => return Ok(()),
                Err(_) => return Err(anyhow!("no progress for {COPY_STALL_TIMEOUT:?}")),
            }
        }
    }

    /// Removes the container of a copy that was cut short, if there is one. Somebody else's of that name stays, and is
    /// an error.
    pub(crate) async fn remove_copy(&self) -> Result<()> {
        let call = self
            .client
            .inspect_container(COPY_CONTAINER, None::<InspectContainerOptions>);
        let found = absent_is_none(bounded(CALL_TIMEOUT, call).await)
            .with_context(|| format!("failed to look for the container {COPY_CONTAINER}"))?;
        let Some(found) = found else { return Ok(()) };
        if !self.is_ours(&found).await? {
            bail!(
                "the container {COPY_CONTAINER} was not made by this agent, which copies files out of images by one of \
                 that name: rename it with `docker rename {COPY_CONTAINER} …`, or remove it"
            );
        }
        // By its id: the name may be another's by now.
        let id = found.id.unwrap_or_default();
        let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        let removed = bounded(CALL_TIMEOUT, self.client.remove_container(&id, Some(options))).await;
        absent_is_none(removed).with_context(|| format!("failed to remove the container {COPY_CONTAINER}"))?;
        Ok(())
    }

    /// Removes an image, unless something else uses it.
    pub(crate) async fn remove_image(&self, image: &str) -> Result<()> {
        let call = self.client.remove_image(image, None::<RemoveImageOptions>, None);
        absent_is_none(bounded(CALL_TIMEOUT, call).await)
            .with_context(|| format!("failed to remove the image {image}"))?;
        Ok(())
    }

    /// Asks the image's registry for its manifest, as who `registries` says, without getting it.
    pub(crate) async fn has_in_registry(&self, image: &str, registries: &Registries) -> Result<()> {
        let credentials = registries.credentials(image).await?.map(Credentials::into_inner);
        bounded(CALL_TIMEOUT, self.client.inspect_registry_image(image, credentials))
            .await
            .with_context(|| format!("failed to ask the registry for {image}"))?;
        Ok(())
    }
}
