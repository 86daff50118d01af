//! The calls of Docker's Engine API for the workload's container.

mod container;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::errors::Error;
use bollard::models::LocalNodeState;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
    WaitContainerOptionsBuilder,
};
use tokio_stream::StreamExt;

pub(super) use container::{Container, Healthcheck, short_id};

use super::spec::{self, JSON_FILES, Limits};
use super::wanted::Wanted;
use crate::config::Network;
use crate::docker::{self, CALL_TIMEOUT, MANAGED, Progress, Registries, absent_is_none, bounded};

/// Somebody else's container has the configured name.
#[derive(Debug, thiserror::Error)]
#[error(
    "the container {name} ({id}) was not made by this agent: remove it with `docker rm -f {name}`, or choose another \
     workload.container.name (labels that its image gave it don't make it the agent's)"
)]
pub(super) struct NotOurs {
    pub(super) name: String,
    id: String,
}

/// The fault of a rootless dockerd.
pub(super) const ROOTLESS: &str =
    "this dockerd is rootless: its containers are in a network of its own, where Envoy on this VM can't call them";
/// Remedy for a rootless dockerd.
pub(super) const ROOTFUL: &str = "name the socket of one that runs as root in workload.container.docker_socket";
/// The fault of a dockerd whose bridge is switched off.
pub(super) const BRIDGELESS: &str =
    "this dockerd has no bridge (\"bridge\": \"none\"): containers have no address there, and Envoy can't call them";
/// Remedy for a dockerd without a bridge.
pub(super) const BRIDGED: &str = "take \"bridge\": \"none\" out of /etc/docker/daemon.json, then `systemctl restart docker`; \
                                  or set workload.container.network = \"host\"";

/// A connection to dockerd.
pub(super) struct Engine {
    docker: docker::Engine,
}

/// Settings of dockerd.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Setup {
    /// True for one without root's rights, whose containers are in a network of their own.
    pub(super) is_rootless: bool,
    /// True for one with a bridge of its own.
    pub(super) has_bridge: bool,
    /// The part that dockerd has in a swarm; `None` outside of any.
    pub(super) swarm: Option<SwarmNode>,
    /// True when containers live on while dockerd is stopped or restarted.
    pub(super) has_live_restore: bool,
}

impl Setup {
    /// Fault that keeps Envoy from calling containers, of which some are on the bridge or none, and its remedy.
    pub(super) fn obstacle(&self, is_bridged: bool) -> Option<(&'static str, &'static str)> {
        match self.is_rootless {
            true => Some((ROOTLESS, ROOTFUL)),
            false => (is_bridged && !self.has_bridge).then_some((BRIDGELESS, BRIDGED)),
        }
    }
}

/// The part that a dockerd has in a swarm.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SwarmNode {
    Worker,
    /// One of those that keep the swarm's state; it leaves by force only.
    Manager,
}

/// The end that `Engine::ended` waited for.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum WaitEnd {
    /// The process exited with this status.
    Exited(i64),
    /// Somebody removed the container.
    Removed,
}

impl fmt::Display for WaitEnd {
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

    /// Fails with the reason why the image's registry would not give it.
    pub(super) async fn has_in_registry(&self, image: &str, registries: &Registries) -> Result<()> {
        self.docker.has_in_registry(image, registries).await
    }

    /// The TCP ports that an image says it listens on; none where it isn't here, or says nothing.
    pub(super) async fn exposed_ports(&self, image: &str) -> Result<Vec<u16>> {
        let inspected = absent_is_none(bounded(CALL_TIMEOUT, self.docker.client().inspect_image(image)).await)?;
        let exposed = inspected
            .and_then(|image| image.config?.exposed_ports)
            .unwrap_or_default();
        let tcp = exposed
            .iter()
            .filter_map(|port| port.strip_suffix("/tcp")?.parse().ok());
        Ok(tcp.collect())
    }

    pub(super) async fn pull(&self, image: &str, registries: &Registries, tell: impl FnMut(Progress)) -> Result<()> {
        self.docker
            .pull(image, "workload.container.image", registries, tell)
            .await
    }

    /// Removes images of the same repository that nothing uses, but for the `keep` last ones.
    pub(super) async fn prune(&self, image: &str, keep: usize) -> Result<Vec<String>> {
        self.docker.prune(image, keep).await
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Container>> {
        // On the heap, for it is a part of nearly every future here.
        Box::pin(self.inspect(name)).await
    }

    async fn inspect(&self, name: &str) -> Result<Option<Container>> {
        let call = self
            .docker
            .client()
            .inspect_container(name, None::<InspectContainerOptions>);
        let found = absent_is_none(bounded(CALL_TIMEOUT, call).await)
            .with_context(|| format!("failed to look for the container {name}"))?;
        let Some(found) = found else { return Ok(None) };
        let made = self.docker.is_ours(&found).await?;
        Ok(Some(Container::new(found, made)))
    }

    /// The container of the configured name, when it is as configured or can be made so without another one. One that
    /// doesn't run has to be as one would be made now, one that runs isn't disturbed for that. Fails when it is somebody
    /// else's.
    pub(super) async fn configured(&self, wanted: &Wanted) -> Result<Option<Container>> {
        let Some(container) = self.find(&wanted.config.name).await? else {
            return Ok(None);
        };
        match &container.spec {
            None => Err(NotOurs {
                id: short_id(&container.id).to_owned(),
                name: container.name,
            }
            .into()),
            Some(_) => Ok(Some(container).filter(|container| container.can_be(wanted))),
        }
    }

    /// All containers that are the agent's, running or not.
    pub(super) async fn ours(&self) -> Result<Vec<Container>> {
        let filters = HashMap::from([("label", vec![format!("{MANAGED}=true")])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = bounded(CALL_TIMEOUT, self.docker.client().list_containers(Some(options)))
            .await
            .context("failed to list the containers with this agent's label")?;
        let mut ours = Vec::new();
        for id in listed.into_iter().filter_map(|container| container.id) {
            ours.extend(self.find(&id).await?.filter(|container| container.spec.is_some()));
        }
        Ok(ours)
    }

    /// Asks how dockerd is set up.
    pub(super) async fn setup(&self) -> Result<Setup> {
        let info = bounded(CALL_TIMEOUT, self.docker.client().info()).await;
        let info = info.context("failed to ask Docker how it is configured")?;
        let outside = |state| matches!(state, LocalNodeState::INACTIVE | LocalNodeState::EMPTY);
        let swarm = info.swarm.filter(|swarm| !swarm.local_node_state.is_none_or(outside));
        let options = info.security_options.unwrap_or_default();
        Ok(Setup {
            has_bridge: self.has_bridge().await?,
            is_rootless: options.iter().any(|option| option.contains("name=rootless")),
            swarm: swarm.map(|swarm| match swarm.control_available {
                Some(true) => SwarmNode::Manager,
                _ => SwarmNode::Worker,
            }),
            has_live_restore: info.live_restore_enabled.unwrap_or_default(),
        })
    }

    async fn has_bridge(&self) -> Result<bool> {
        let client = self.docker.client();
        let found = client.inspect_network("bridge", None::<InspectNetworkOptions>);
        let found =
            absent_is_none(bounded(CALL_TIMEOUT, found).await).context("failed to ask Docker for its bridge")?;
        Ok(found.is_some())
    }

    /// Fails where Envoy could not call containers of these networks.
    pub(super) async fn expect_callable(&self, mut networks: impl Iterator<Item = Network>) -> Result<()> {
        let is_bridged = networks.any(|network| network == Network::Bridge);
        match self.setup().await?.obstacle(is_bridged) {
            Some((problem, remedy)) => bail!("{problem}: {remedy}"),
            None => Ok(()),
        }
    }

    /// Reads a file of a container, which need not run, of at most `max` bytes; `None` when the container has no such
    /// file.
    pub(super) async fn read(&self, id: &str, path: &str, max: usize) -> Result<Option<String>> {
        let mut archive = Vec::new();
        let take = |piece: &[u8]| {
            // A header and the file, in blocks, and two blocks at the end.
            if archive.len() + piece.len() > max + (4 << 10) {
                return Err(io::Error::other(format!("is longer than {max} bytes")));
            }
            archive.extend_from_slice(piece);
            Ok(())
        };
        let copied = self.docker.archive(id, path, take).await;
        if absent_is_none(copied)
            .with_context(|| format!("failed to read the container's {path}"))?
            .is_none()
        {
            return Ok(None);
        }
        let mut archive = tar::Archive::new(archive.as_slice());
        let entry = archive.entries()?.next().transpose()?;
        let mut file = entry
            .filter(|entry| entry.header().entry_type().is_file())
            .with_context(|| format!("the container's {path} is no regular file"))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        Ok(Some(String::from_utf8_lossy(&text).into_owned()))
    }

    /// Creates the container, stopped, and returns its id.
    pub(super) async fn create(&self, name: &str, wanted: &Wanted) -> Result<String> {
        let info = bounded(CALL_TIMEOUT, self.docker.client().info()).await;
        let info = info.context("failed to ask Docker how it is configured")?;
        let log_driver = info.logging_driver.unwrap_or_else(|| JSON_FILES.to_owned());
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let call = self
            .docker
            .client()
            .create_container(Some(options), spec::create_body(wanted, &log_driver));
        let created = bounded(CALL_TIMEOUT, call)
            .await
            .with_context(|| format!("failed to create the container {name}"))?;
        Ok(created.id)
    }

    /// Gives a container another name.
    pub(super) async fn rename(&self, container: &Container, name: &str) -> Result<()> {
        let options = RenameContainerOptionsBuilder::new().name(name).build();
        bounded(
            CALL_TIMEOUT,
            self.docker.client().rename_container(&container.id, options),
        )
        .await
        .with_context(|| format!("failed to rename the container {} to {name}", container.name))
    }

    /// Gives a container other limits, whether it runs or not.
    pub(super) async fn limit(&self, container: &Container, limits: Limits) -> Result<()> {
        let call = self
            .docker
            .client()
            .update_container(&container.id, limits.update_body());
        bounded(CALL_TIMEOUT, call)
            .await
            .with_context(|| format!("failed to change the limits of the container {}", container.name))
    }

    pub(super) async fn start(&self, id: &str, name: &str) -> Result<()> {
        let call = self.docker.client().start_container(id, None::<StartContainerOptions>);
        bounded(CALL_TIMEOUT, call).await.map_err(|error| {
            let message = format!("failed to start the container {name}");
            match error.to_string().contains("already allocated")
                || error.to_string().contains("address already in use")
            {
                true => error.context(format!("{message} (free the port, or change workload.container.ports)")),
                false => error.context(message),
            }
        })
    }

    /// Stops a container by TERM, and by KILL after `grace`. One that doesn't run, or isn't there, is fine.
    pub(super) async fn stop(&self, container: &Container, grace: Duration) -> Result<()> {
        // Docker counts whole seconds; a second more is better than a kill without a warning.
        let seconds = i32::try_from(grace.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(seconds).build();
        let patient = self.docker.client().clone().with_timeout(grace + CALL_TIMEOUT);
        let stopped = bounded(
            grace + CALL_TIMEOUT,
            patient.stop_container(&container.id, Some(options)),
        )
        .await;
        absent_is_none(stopped).with_context(|| format!("failed to stop the container {}", container.name))?;
        Ok(())
    }

    /// Removes a container and its anonymous volumes; one that isn't there is fine.
    pub(super) async fn remove(&self, container: &Container) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        let removed = bounded(
            CALL_TIMEOUT,
            self.docker.client().remove_container(&container.id, Some(options)),
        )
        .await;
        absent_is_none(removed).with_context(|| format!("failed to remove the container {}", container.name))?;
        Ok(())
    }

    /// Waits until a container runs no more. Fails when dockerd went away, not the container.
    pub(super) async fn ended(&self, id: &str) -> Result<WaitEnd> {
        let options = WaitContainerOptionsBuilder::new().condition("not-running").build();
        match self.docker.client().wait_container(id, Some(options)).next().await {
            Some(Ok(ended)) => Ok(WaitEnd::Exited(ended.status_code)),
            Some(Err(Error::DockerContainerWaitError { code, .. })) => Ok(WaitEnd::Exited(code)),
            Some(Err(Error::DockerResponseServerError { status_code: 404, .. })) => Ok(WaitEnd::Removed),
            Some(Err(error)) => Err(error).context("failed to watch the container"),
            None => bail!("lost the connection to Docker"),
        }
    }
}
