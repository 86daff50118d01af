//! Files out of a container.

use std::io;
use std::time::Duration;

use anyhow::{Result, anyhow};
use bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::engine::Engine;

/// The time without progress after which a copy fails.
const COPY_STALL_TIMEOUT: Duration = Duration::from_secs(60);

impl Engine {
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
}
