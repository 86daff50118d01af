//! A connection to dockerd: images, and the client for all other calls.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use bollard::query_parameters::CreateImageOptionsBuilder;
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::call::{CALL_TIMEOUT, absent_is_none, bounded};
use super::image::ImageRef;

/// The time without a word of progress after which a pull fails.
const PULL_STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A connection to dockerd, at the API version that both speak.
#[derive(Clone)]
pub(crate) struct Engine {
    pub(super) client: Docker,
    socket: String,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("socket", &self.socket).finish()
    }
}

impl Engine {
    /// Connects to dockerd at a socket. Fails when none answers there within [`CALL_TIMEOUT`].
    pub(crate) async fn connect(socket: &str) -> Result<Self> {
        let connected = timeout(CALL_TIMEOUT, async {
            // bollard's own words for a refused connection say neither what nor why.
            UnixStream::connect(socket).await?;
            let docker = Docker::connect_with_unix(socket, CALL_TIMEOUT.as_secs(), API_DEFAULT_VERSION)?;
            anyhow::Ok(docker.negotiate_version().await?)
        });
        let docker = connected
            .await
            .unwrap_or_else(|_| Err(anyhow!("no answer within {CALL_TIMEOUT:?}")))
            .with_context(|| format!("failed to reach Docker at {socket}: check that docker.service runs"))?;
        Ok(Self {
            client: docker,
            socket: socket.to_owned(),
        })
    }

    /// bollard's client, for calls that only one feature makes.
    pub(crate) fn client(&self) -> &Docker {
        &self.client
    }

    /// True when the image is here.
    pub(crate) async fn has_image(&self, image: &str) -> Result<bool> {
        let found = absent_is_none(bounded(CALL_TIMEOUT, self.client.inspect_image(image)).await);
        Ok(found
            .with_context(|| format!("failed to look for the image {image}"))?
            .is_some())
    }

    /// Gets an image from its registry. The error names the registry, a remedy, and `key`, which configured the image.
    pub(crate) async fn pull(&self, image: &str, key: &str) -> Result<()> {
        let ImageRef { registry, tag, name } = ImageRef::parse(image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut progress = self
            .client
            .clone()
            .with_timeout(PULL_STALL_TIMEOUT)
            .create_image(Some(options), None, None);
        let pulled = loop {
            match timeout(PULL_STALL_TIMEOUT, progress.next()).await {
                Ok(Some(Ok(_))) => {}
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
        "the registry wants a login or doesn't know the image: `docker pull` it once as root, or allow reads without a login"
            .to_owned()
    } else if says(&["manifest unknown", "not found", "name unknown"]) {
        format!("check the tag or digest in {key}")
    } else if says(&["x509", "HTTP response to HTTPS client"]) {
        format!("dockerd doesn't trust {registry}: see /etc/docker/certs.d and insecure-registries in daemon.json")
    } else {
        format!("check that the VM reaches {registry}")
    }
}
