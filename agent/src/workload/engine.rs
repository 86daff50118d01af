//! Docker's Engine API as this feature needs it: every call with a deadline, every error with its remedy.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use bollard::errors::Error;
use bollard::models::ContainerInspectResponse;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::spec::{self, ImageRef, MANAGED, SPEC};
use crate::config::ContainerConfig;

/// Deadline of a call that does little.
const CALL: Duration = Duration::from_secs(30);
/// A pull without a word of progress for this long is given up, and tried again.
const PULL_STALL: Duration = Duration::from_secs(120);

/// A connection to dockerd, at the API version that both speak.
pub(super) struct Engine {
    docker: Docker,
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
        let connected = timeout(CALL, async {
            // bollard's own words for a refused connection say neither what nor why.
            UnixStream::connect(socket).await?;
            let docker = Docker::connect_with_unix(socket, CALL.as_secs(), API_DEFAULT_VERSION)?;
            anyhow::Ok(docker.negotiate_version().await?)
        });
        let docker = connected
            .await
            .unwrap_or_else(|_| Err(anyhow!("no answer within {CALL:?}")))
            .with_context(|| format!("failed to reach Docker at {socket}: check that docker.service runs"))?;
        Ok(Self { docker })
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Found>> {
        let call = self.docker.inspect_container(name, None::<InspectContainerOptions>);
        let found = absent_is_none(bounded(CALL, call).await)
            .with_context(|| format!("failed to look for the container {name}"))?;
        Ok(found.map(Found::from))
    }

    /// All containers with our label, running or not.
    pub(super) async fn ours(&self) -> Result<Vec<Found>> {
        let filters = HashMap::from([("label", vec![format!("{MANAGED}=true")])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = bounded(CALL, self.docker.list_containers(Some(options)))
            .await
            .context("failed to list the containers with this agent's label")?;
        let mut ours = Vec::new();
        for id in listed.into_iter().filter_map(|container| container.id) {
            ours.extend(self.find(&id).await?);
        }
        Ok(ours)
    }

    pub(super) async fn has_image(&self, image: &str) -> Result<bool> {
        let found = absent_is_none(bounded(CALL, self.docker.inspect_image(image)).await);
        Ok(found
            .with_context(|| format!("failed to look for the image {image}"))?
            .is_some())
    }

    pub(super) async fn pull(&self, image: &str) -> Result<()> {
        let ImageRef { registry, tag, name } = ImageRef::parse(image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let mut progress = self
            .docker
            .clone()
            .with_timeout(PULL_STALL)
            .create_image(Some(options), None, None);
        let pulled = loop {
            match timeout(PULL_STALL, progress.next()).await {
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => break Err(anyhow::Error::from(error)),
                Ok(None) => break Ok(()),
                Err(_) => break Err(anyhow!("no progress for {PULL_STALL:?}")),
            }
        };
        pulled.map_err(|error| {
            let remedy = pull_remedy(&format!("{error:#}"), registry);
            error.context(format!("failed to pull {image} from {registry} ({remedy})"))
        })
    }

    /// Creates it, stopped, and returns its id.
    pub(super) async fn create(&self, config: &ContainerConfig) -> Result<String> {
        let options = CreateContainerOptionsBuilder::new().name(&config.name).build();
        let call = self.docker.create_container(Some(options), spec::create_body(config));
        let created = bounded(CALL, call)
            .await
            .with_context(|| format!("failed to create the container {}", config.name))?;
        Ok(created.id)
    }

    pub(super) async fn start(&self, id: &str, config: &ContainerConfig) -> Result<()> {
        let call = self.docker.start_container(id, None::<StartContainerOptions>);
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
        let patient = self.docker.clone().with_timeout(grace + CALL);
        let stopped = bounded(grace + CALL, patient.stop_container(&container.id, Some(options))).await;
        absent_is_none(stopped).with_context(|| format!("failed to stop the container {}", container.name))?;
        Ok(())
    }

    /// Removes it and its anonymous volumes.
    pub(super) async fn remove(&self, container: &Found) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        let removed = bounded(CALL, self.docker.remove_container(&container.id, Some(options))).await;
        absent_is_none(removed).with_context(|| format!("failed to remove the container {}", container.name))?;
        Ok(())
    }

    /// Waits until it runs no more. An error means that dockerd went away, not the container.
    pub(super) async fn ended(&self, id: &str) -> Result<Ended> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        match self.docker.wait_container(id, Some(options)).next().await {
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
        let managed = labels.remove(MANAGED).is_some_and(|value| value == "true");
        let status = state.exit_code.unwrap_or_default();
        let memory = state.oom_killed.unwrap_or_default();
        Self {
            id: container.id.unwrap_or_default(),
            name: container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            spec: managed.then(|| labels.remove(SPEC).unwrap_or_default()),
            running: state.running.unwrap_or_default(),
            end: match state.error.filter(|error| !error.is_empty()) {
                Some(error) => error,
                None if memory => format!("exited with status {status}: the kernel killed it for want of memory"),
                None => Ended::Exited(status).to_string(),
            },
        }
    }
}

/// A call and its deadline: bollard's own ends with the response's head.
async fn bounded<T>(deadline: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T> {
    match timeout(deadline, call).await {
        Ok(result) => Ok(result?),
        Err(_) => bail!("Docker did not answer within {deadline:?}"),
    }
}

fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.downcast_ref() {
            Some(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            _ => Err(error),
        },
    }
}

/// Registries word their refusals alike; what to do about them differs.
fn pull_remedy(error: &str, registry: &str) -> String {
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
        "check the tag or digest in workload.container.image".to_owned()
    } else if says(&["x509", "HTTP response to HTTPS client"]) {
        format!("dockerd doesn't trust {registry}: see /etc/docker/certs.d and insecure-registries in daemon.json")
    } else {
        format!("check that the VM reaches {registry}")
    }
}
