//! The container without an agent: what `plan`, `check` and `revert` look at and do.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::engine::{Engine, Setup, short_id};
use crate::config::ContainerConfig;

/// The changes that a start of the agent would make, one a line; `None` when the container runs as configured. Changes
/// nothing.
pub async fn plan(config: &ContainerConfig) -> Result<Option<String>> {
    let ContainerConfig { name, image, .. } = config;
    let engine = Engine::connect(&config.docker_socket).await?;
    let right = engine.configured(config).await?;
    let mut lines = Vec::new();
    for old in engine.ours().await? {
        if right.as_ref().is_none_or(|right| right.id != old.id) {
            lines.push(format!("- container {} ({})", old.name, short_id(&old.id)));
        }
    }
    match right {
        Some(container) if container.running => {}
        Some(container) => lines.push(format!("+ start the container {name} ({})", short_id(&container.id))),
        None => {
            if !engine.has_image(image).await? {
                lines.push(format!("+ image {image}"));
            }
            lines.push(format!("+ container {name} from {image}"));
        }
    }
    Ok((!lines.is_empty()).then(|| lines.join("\n")))
}

/// How dockerd is set up.
pub(super) async fn setup(config: &ContainerConfig) -> Result<Setup> {
    Engine::connect(&config.docker_socket).await?.setup().await
}

/// Stops and removes every container of the agent's. A VM without dockerd has none: its socket's absence is fine.
pub async fn remove(socket: &str, stop_timeout: Duration) -> Result<()> {
    let engine = match Engine::connect(socket).await {
        Ok(engine) => engine,
        Err(error) if is_absent(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut failures = Vec::new();
    for container in engine.ours().await? {
        let gone = async {
            engine.stop(&container, stop_timeout).await?;
            engine.remove(&container).await
        };
        match gone.await {
            Ok(()) => tracing::info!(container = container.name, "stopped and removed the container"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(anyhow!(failures.join("; "))).context("failed to remove this agent's containers"),
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::NotFound)
}
