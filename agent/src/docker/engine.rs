//! A connection to dockerd: images, and the client for all other calls.

use std::fmt;

use anyhow::{Context, Result, anyhow};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::call::{CALL_TIMEOUT, absent_is_none, bounded};
use super::registry::{Credentials, Registries};

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

    /// Asks the image's registry for its manifest, as who `registries` says, without getting it.
    pub(crate) async fn has_in_registry(&self, image: &str, registries: &Registries) -> Result<()> {
        let credentials = registries.credentials(image).await?.map(Credentials::into_inner);
        bounded(CALL_TIMEOUT, self.client.inspect_registry_image(image, credentials))
            .await
            .with_context(|| format!("failed to ask the registry for {image}"))?;
        Ok(())
    }
}
