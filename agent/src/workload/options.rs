//! Options of the container: the configuration, and what it names on the VM.

use std::time::Duration;

use anyhow::Result;

use super::engine::Container;
use super::others::Others;
use super::wanted::Wanted;
use super::well::Judge;
use super::{env_file, ports, secrets};
use crate::config::{Backend, Config, ContainerConfig, FailPolicy, Network, PathsConfig, Rollout, WorkloadConfig};
use crate::docker::Registries;
use crate::facts::{Membership, Probe, ProbeKind};
use crate::host::Host;

/// The options of `run`.
#[derive(Clone, Debug)]
pub struct Options {
    /// The machine.
    pub host: Host,
    /// The agent's files.
    pub paths: PathsConfig,
    /// The name of the application, by which its files are told from those of others.
    pub workload: String,
    /// The other applications' containers.
    pub others: Others,
    /// The container that is to run.
    pub config: ContainerConfig,
    /// True when Docker is to publish its ports on the VM. Where the rules lead every call to Envoy, and Envoy calls the
    /// container at its own address, nothing needs them; and without them two containers run beside each other.
    pub publishes: bool,
    /// Probe that another one must answer before it takes the place of the one that runs.
    pub judge: Judge,
    /// Time for all proxies of the mesh to hear that callers are to go elsewhere; `None` where istiod takes no word on the
    /// health of the application.
    pub propagation: Option<Duration>,
}

impl Options {
    /// The options of each container that is configured.
    pub(super) fn of_each(host: &Host, config: &Config, membership: Option<&Membership>) -> Vec<Self> {
        let workloads = config.workloads.iter();
        let containers = workloads.filter_map(|workload| Some((workload, workload.container.clone()?)));
        let of_each = containers.zip(Others::of_each(&config.workloads));
        of_each
            .map(|((workload, container), others)| Self::new(host, config, membership, workload, container, others))
            .collect()
    }

    fn new(
        host: &Host,
        config: &Config,
        membership: Option<&Membership>,
        workload: &WorkloadConfig,
        container: ContainerConfig,
        others: Others,
    ) -> Self {
        let intercept = &config.intercept;
        let is_guarded = intercept.backend != Backend::None && intercept.on_envoy_down.inbound == FailPolicy::Closed;
        let theirs = membership.and_then(|membership| membership.probe.as_ref());
        let of_the_vm = config.health.choose(theirs).map(|(probe, _)| probe);
        let is_probed = of_the_vm.is_some() || config.workloads.iter().any(|it| it.probe.is_some());
        let own = workload.probe.as_ref().map(|probe| probe.0.clone());
        let asks_it = |probe: &Probe| config.workloads.only().is_some() || ports::is_of(probe, &container);
        let probe = own.or_else(|| of_the_vm.filter(asks_it));
        let is_command = |probe: &Probe| matches!(probe.kind, ProbeKind::Exec { .. });
        Self {
            judge: Judge {
                probe: probe.filter(|probe| !is_command(probe)),
                address: membership.and_then(|membership| membership.instance_ips.first().copied()),
            },
            propagation: is_probed.then_some(config.control_plane.propagation),
            workload: workload.name.clone(),
            others,
            host: host.clone(),
            paths: config.paths.clone(),
            publishes: container.network == Network::Bridge && !is_guarded,
            config: container,
        }
    }

    /// True when another container can run beside `former`: each has an address of its own and nothing else that only one
    /// of them can have.
    pub(super) fn runs_beside(&self, former: &Container) -> bool {
        let is_on_bridge = self.config.network == Network::Bridge && former.address.is_some();
        is_on_bridge && !self.publishes && self.config.rollout() == Rollout::Rolling
    }

    /// Reads what the configuration names.
    ///
    /// # Errors
    /// When a file of variables is not there, or can't be read.
    pub(super) fn wanted(&self) -> Result<Wanted> {
        let env = env_file::variables(&self.host, &self.config)?;
        let has_secrets = !self.config.secrets.is_empty();
        Ok(Wanted {
            config: ContainerConfig {
                env,
                ..self.config.clone()
            },
            secrets: has_secrets.then(|| self.host.real_path(&self.paths.container_secrets(&self.workload))),
            publishes: self.publishes,
        })
    }

    /// Who the agent is to the image's registry.
    pub(super) fn registries(&self) -> Registries {
        Registries::new(&self.host, self.config.registry_config.as_deref())
    }

    /// Puts the secrets where the container finds them.
    pub(super) fn place_secrets(&self) -> Result<()> {
        secrets::place(&self.host, &self.paths.container_secrets(&self.workload), &self.config)
    }
}
