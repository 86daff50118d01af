//! What this feature asks of Docker's Engine API.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use tokio_stream::StreamExt;

use super::spec::{self, SPEC};
use crate::config::ContainerConfig;
use crate::docker::{self, CALL, MANAGED, absent_is_none, bounded};

/// The name of Docker's default network.
const BRIDGE: &str = "bridge";

/// A connection to dockerd.
pub(super) struct Engine {
    docker: docker::Engine,
}

/// A container that is there.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Found {
    /// 64 hex characters.
    pub(super) id: String,
    /// Without Docker's leading slash.
    pub(super) name: String,
    /// Hash of the specification it was made from; `None` when it isn't ours.
    pub(super) spec: Option<String>,
    /// Whether its process lives.
    pub(super) running: bool,
    /// Its address on Docker's bridge.
    pub(super) address: Option<IpAddr>,
    /// How its process ended, in words.
    pub(super) end: String,
}

/// How `Engine::ended` came back.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Ended {
    /// With this status.
    Exited(i64),
    /// Somebody removed it.
    Removed,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "exited with status {status}"),
            Self::Removed => f.write_str("was removed"),
        }
    }
}

impl Engine {
    pub(super) async fn connect(socket: &str) -> Result<Self> {
        let docker = docker::Engine::connect(socket).await?;
        Ok(Self { docker })
    }

    pub(super) async fn has_image(&self, image: &str) -> Result<bool> {
        self.docker.has_image(image).await
    }

    pub(super) async fn pull(&self, image: &str) -> Result<()> {
        self.docker.pull(image, "workload.container.image").await
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Found>> {
        let call = self
            .docker
            .client()
            .inspect_container(name, None::<InspectContainerOptions>);
        let found = absent_is_none(bounded(CALL, call).await)
            .with_context(|| format!("failed to look for the container {name}"))?;
        Ok(found.map(Found::from))
    }

    /// All containers with our label, running or not.
    pub(super) async fn ours(&self) -> Result<Vec<Found>> {
        let filters = HashMap::from([("label", vec![format!("{MANAGED}=true")])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = bounded(CALL, self.docker.client().list_containers(Some(options)))
            .await
            .context("failed to list the containers with this agent's label")?;
        let mut ours = Vec::new();
        for id in listed.into_iter().filter_map(|container| container.id) {
            ours.extend(self.find(&id).await?);
        }
        Ok(ours)
    }

    /// Whether containers live on while dockerd is stopped or restarted.
    pub(super) async fn live_restore(&self) -> Result<bool> {
        let info = bounded(CALL, self.docker.client().info()).await;
        let info = info.context("failed to ask Docker how it is configured")?;
        Ok(info.live_restore_enabled.unwrap_or_default())
    }

    /// Creates it, stopped, and returns its id.
    pub(super) async fn create(&self, config: &ContainerConfig) -> Result<String> {
        let options = CreateContainerOptionsBuilder::new().name(&config.name).build();
        let call = self
            .docker
            .client()
            .create_container(Some(options), spec::create_body(config));
        let created = bounded(CALL, call)
            .await
            .with_context(|| format!("failed to create the container {}", config.name))?;
        Ok(created.id)
    }

    pub(super) async fn start(&self, id: &str, config: &ContainerConfig) -> Result<()> {
        let call = self.docker.client().start_container(id, None::<StartContainerOptions>);
        bounded(CALL, call).await.map_err(|error| {
            let message = format!("failed to start the container {}", config.name);
            match error.to_string().contains("already allocated")
                || error.to_string().contains("address already in use")
            {
                true => error.context(format!("{message} (free the port, or change workload.container.ports)")),
                false => error.context(message),
            }
        })
    }

    /// TERM, then KILL after `grace`. One that doesn't run, or isn't there, is fine.
    pub(super) async fn stop(&self, container: &Found, grace: Duration) -> Result<()> {
        // Docker counts whole seconds; a second more is better than a kill without a warning.
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let patient = self.docker.client().clone().with_timeout(grace + CALL);
        let stopped = bounded(grace + CALL, patient.stop_container(&container.id, Some(options))).await;
        absent_is_none(stopped).with_context(|| format!("failed to stop the container {}", container.name))?;
        Ok(())
    }

    /// Removes it and its anonymous volumes.
    pub(super) async fn remove(&self, container: &Found) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        let removed = bounded(
            CALL,
            self.docker.client().remove_container(&container.id, Some(options)),
        )
        .await;
        absent_is_none(removed).with_context(|| format!("failed to remove the container {}", container.name))?;
        Ok(())
    }

    /// Waits until it runs no more. An error means that dockerd went away, not the container.
    pub(super) async fn ended(&self, id: &str) -> Result<Ended> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        match self.docker.client().wait_container(id, Some(options)).next().await {
            Some(Ok(ended)) => Ok(Ended::Exited(ended.status_code)),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(Ended::Exited(code)),
            Some(Err(Error::DockerResponseServerError { status_code: 404, .. })) => Ok(Ended::Removed),
            Some(Err(error)) => Err(error).context("failed to watch the container"),
            None => bail!("lost the connection to Docker"),
        }
    }
}

impl From<ContainerInspectResponse> for Found {
    fn from(container: ContainerInspectResponse) -> Self {
        let state = container.state.unwrap_or_default();
        let mut labels = container.config.and_then(|config| config.labels).unwrap_or_default();
        let networks = container.network_settings.and_then(|settings| settings.networks);
        let bridge = networks.and_then(|mut networks| networks.remove(BRIDGE));
        let managed = labels.remove(MANAGED).is_some_and(|value| value == "true");
        let status = state.exit_code.unwrap_or_default();
        let memory = state.oom_killed.unwrap_or_default();
        Self {
            id: container.id.unwrap_or_default(),
            name: container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            spec: managed.then(|| labels.remove(SPEC).unwrap_or_default()),
            running: state.running.unwrap_or_default(),
            address: bridge.and_then(|bridge| bridge.ip_address?.parse().ok()),
            end: match state.error.filter(|error| !error.is_empty()) {
                Some(error) => error,
                None if memory => format!("exited with status {status}: the kernel killed it for want of memory"),
                None => Ended::Exited(status).to_string(),
            },
        }
    }
}
