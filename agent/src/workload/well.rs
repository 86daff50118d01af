//! Proof of a container that is to take over from another that it is well.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

use super::engine::{Container, Engine, Healthcheck};
use crate::config::{ContainerConfig, Network};
use crate::facts::{Probe, ProbeKind};
use crate::probing::{self, Place};

/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Time for which a container has to be well without a break: many a server dies right after it first listens.
const WELL_FOR: Duration = Duration::from_secs(3);
/// Time that a port is given to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The questions that a container must answer.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// The application's probe, unless it is a command, which asks the VM.
    pub(super) probe: Option<Probe>,
    /// The VM's address in the mesh.
    pub(super) address: Option<IpAddr>,
}

impl Judge {
    /// Waits until a container is well: its image's HEALTHCHECK says so, and the probe; without a probe its ports take
    /// connections. It has to be so for [`WELL_FOR`].
    ///
    /// # Errors
    /// When it ends, or isn't well within `config.startup_timeout`; the error has the last reason.
    pub(super) async fn wait(&self, engine: &Engine, id: &str, config: &ContainerConfig) -> Result<()> {
        let began = Instant::now();
        let mut well_since = None;
        loop {
            let asked = match engine.find(id).await {
                Ok(Some(container)) if container.running => self.ask(&container, config).await,
                Ok(Some(container)) => bail!("it {}", container.end),
                Ok(None) => bail!("it was removed"),
                // No answer of dockerd's says nothing against the container.
                Err(error) => Err(format!("{error:#}")),
            };
            match asked {
                Ok(()) if well_since.get_or_insert_with(Instant::now).elapsed() >= WELL_FOR => return Ok(()),
                Ok(()) => {}
                Err(reason) if began.elapsed() >= config.startup_timeout => bail!(
                    "it is not well {} after its start: {reason} (see workload.container.startup_timeout)",
                    humantime::format_duration(config.startup_timeout)
                ),
                Err(_) => well_since = None,
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn ask(&self, container: &Container, config: &ContainerConfig) -> Result<(), String> {
        match container.healthcheck {
            Healthcheck::None | Healthcheck::Healthy => {}
            Healthcheck::Starting => return Err("its HEALTHCHECK has not succeeded yet".to_owned()),
            Healthcheck::Unhealthy => return Err("its HEALTHCHECK fails".to_owned()),
        }
        let place = match (config.network, container.address) {
            (Network::Bridge, Some(address)) => Place::Container(address),
            (Network::Bridge, None) => return Err("it has no address on Docker's bridge".to_owned()),
            (Network::Host, _) => Place::Vm(self.address),
        };
        let questions = match &self.probe {
            Some(probe) => vec![probing::of_container(probe, &config.ports)],
            None => config.published().iter().map(|port| connects(port.container)).collect(),
        };
        for question in &questions {
            probing::ask(question, place, None).await?;
        }
        Ok(())
    }
}

fn connects(port: u16) -> Probe {
    Probe {
        kind: ProbeKind::Tcp { host: None, port },
        initial_delay: Duration::ZERO,
        timeout: CONNECT_TIMEOUT,
        period: LOOK_AGAIN,
        success_threshold: 1,
        failure_threshold: 1,
    }
}
