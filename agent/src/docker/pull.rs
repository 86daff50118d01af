//! The pull of an image.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, anyhow};
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use tokio::time::{Instant, timeout};
use tokio_stream::StreamExt;

use super::engine::Engine;
use super::image::ImageRef;
use super::registry::Registries;

/// The time without a word of progress after which a pull fails.
const PULL_STALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Time between two words on a pull's progress.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Layers whose progress is followed; an image has at most 127.
const MAX_LAYERS: usize = 1024;

/// Progress of a pull: bytes that are here, and all that is known to come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Progress {
    pub(crate) here: u64,
    pub(crate) all: u64,
}

impl Engine {
    /// Gets an image from its registry, as who `registries` says, and tells of its progress every few seconds. The error
    /// names the registry, a remedy, and `key`, which configured the image.
    pub(crate) async fn pull(
        &self,
        image: &str,
        key: &str,
        registries: &Registries,
        mut tell: impl FnMut(Progress),
    ) -> Result<()> {
        let ImageRef { registry, tag, name } = ImageRef::parse(image);
        let credentials = registries.credentials(image).await?.map(super::Credentials::into_inner);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut progress =
            self.client
                .clone()
                .with_timeout(PULL_STALL_TIMEOUT)
                .create_image(Some(options), None, credentials);
        let (mut layers, mut told) = (Layers::default(), Instant::now());
        let pulled = loop {
            match timeout(PULL_STALL_TIMEOUT, progress.next()).await {
                Ok(Some(Ok(info))) => {
                    layers.note(info);
                    if told.elapsed() >= TOLD_EVERY {
                        told = Instant::now();
                        tell(layers.progress());
                    }
                }
                Ok(Some(Err(error))) => break Err(anyhow::Error::from(error)),
                Ok(None) => break Ok(()),
                Err(_) => break Err(anyhow!("no progress for {PULL_STALL_TIMEOUT:?}")),
            }
        };
        pulled.map_err(|error| {
            let remedy = pull_remedy(&format!("{error:#}"), registry, key);
            error.context(format!("failed to pull {image} from {registry} ({remedy})"))
        })
    }
}

/// Progress of each layer, as Docker has told it.
#[derive(Debug, Default)]
struct Layers(HashMap<String, Progress>);

impl Layers {
    fn note(&mut self, info: CreateImageInfo) {
        // A layer that is unpacked counts anew.
        let is_download = info.status.is_some_and(|status| status == "Downloading");
        let (Some(layer), Some(detail), true) = (info.id, info.progress_detail, is_download) else {
            return;
        };
        if self.0.len() < MAX_LAYERS || self.0.contains_key(&layer) {
            let bytes = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or_default();
            let (here, all) = (bytes(detail.current), bytes(detail.total));
            self.0.insert(layer, Progress { here, all });
        }
    }

    fn progress(&self) -> Progress {
        self.0.values().fold(Progress::default(), |sum, layer| Progress {
            here: sum.here.saturating_add(layer.here),
            all: sum.all.saturating_add(layer.all),
        })
    }
}

/// The remedy for a pull's error: registries word their refusals alike.
fn pull_remedy(error: &str, registry: &str, key: &str) -> String {
    let says = |words: &[&str]| words.iter().any(|word| error.contains(word));
    if says(&[
        "unauthorized",
        "denied",
        "no basic auth",
        "authentication required",
        "403 Forbidden",
    ]) {
        "the registry wants a login, another one, or doesn't know the image: see workload.container.registry_config, or \
         `docker pull` it once as root"
            .to_owned()
    } else if says(&["manifest unknown", "not found", "name unknown"]) {
        format!("check the tag or digest in {key}")
    } else if says(&["no space left on device"]) {
        "the disk of dockerd's data is full: see `docker system df`, and workload.container.keep_images".to_owned()
    } else if says(&["x509", "HTTP response to HTTPS client"]) {
        format!("dockerd doesn't trust {registry}: see /etc/docker/certs.d and insecure-registries in daemon.json")
    } else {
        format!("check that the VM reaches {registry}")
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn progress_is_that_of_all_layers_that_come() {
        let mut layers = Layers::default();
        for (layer, status, here) in [
            ("a", "Downloading", 1),
            ("b", "Downloading", 5),
            ("a", "Downloading", 10),
            ("b", "Extracting", 2),
        ] {
            layers.note(CreateImageInfo {
                id: Some(layer.to_owned()),
                status: Some(status.to_owned()),
                progress_detail: Some(ProgressDetail {
                    current: Some(here),
                    total: Some(10),
                }),
                ..CreateImageInfo::default()
            });
        }
        layers.note(CreateImageInfo::default());
        assert_eq!(layers.progress(), Progress { here: 15, all: 20 });
    }
}
