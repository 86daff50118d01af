//! Work that waits for files, commands or the kernel, kept away from the threads that serve.

use anyhow::{Context, Result};

use super::Host;

impl Host {
    /// Runs `work` with this host on a thread that may wait.
    ///
    /// # Errors
    /// When `work` fails or panics.
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let host = self.clone();
        blocking(move || work(&host)).await
    }
}

/// Runs `work` on a thread that may wait.
///
/// # Errors
/// When `work` fails or panics.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .context("the agent's own work failed, which is a bug")?
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::System;

    #[tokio::test]
    async fn blocking_work_gives_its_result_and_a_panic_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let written = host.blocking(|host| Ok(host.write(Path::new("/a"), "text", 0o600, None)?));
        written.await.unwrap();
        assert_eq!(host.text(Path::new("/a")), "text");
        let missing = host.blocking(|host| Ok(host.write(Path::new("/no/a"), "", 0o600, None)?));
        assert!(missing.await.unwrap_err().to_string().starts_with("/no/a: "));
        let panicked = host.blocking(|_| -> Result<()> { panic!("oh") }).await.unwrap_err();
        assert!(format!("{panicked:#}").starts_with("the agent's own work failed, which is a bug: "));
    }
}
