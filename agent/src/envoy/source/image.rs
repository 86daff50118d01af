//! Envoy's program out of an image, through Docker.

use std::io::Write;

use anyhow::{Context, Result};

use crate::docker::{Engine, Registries};
use crate::host::{Host, Staged};

/// The path of the program in Istio's proxy image.
const PROGRAM: &str = "/usr/local/bin/envoy";

/// Pulls the image unless it is here, and saves the tar archive of its Envoy. Leaves no container, and no image that
/// was not here before.
pub(super) async fn save(host: &Host, reference: &str, socket: &str, into: &mut Staged) -> Result<()> {
    let engine = Engine::connect(socket).await?;
    let was_here = engine.has_image(reference).await?;
    if !was_here {
        let registries = Registries::new(host, None);
        engine.pull(reference, "envoy.image", &registries, |_| ()).await?;
    }
    let saved = engine
        .copy_out(reference, PROGRAM, |piece| into.write_all(piece))
        .await
        .context("is it an image of Istio's proxyv2?");
    if !was_here && let Err(error) = engine.remove_image(reference).await {
        tracing::warn!("{error:#}");
    }
    saved
}

/// Asks whether the image is here or its registry has it. Fails when neither is so.
pub(super) async fn ask(host: &Host, reference: &str, socket: &str) -> Result<()> {
    let engine = Engine::connect(socket).await?;
    if engine.has_image(reference).await? {
        return Ok(());
    }
    engine.has_in_registry(reference, &Registries::new(host, None)).await
}

/// Removes the container of a copy that was cut short.
pub(super) async fn remove_cut_short(socket: &str) -> Result<()> {
    Engine::connect(socket).await?.remove_copy().await
}
