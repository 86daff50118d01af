//! Each part as it is started: what it is given of the configuration, and which channels it reads and writes.

use super::{App, SHORT, verdict};
use crate::config::{Backend, ports};
use crate::host::Owner;
use crate::supervise::Clock;
use crate::{control_plane, dns, envoy, health, hosts, identity, intercept, join, workload, xds};

/// Envoy's user: what it must be able to open belongs to it.
const ENVOY_USER: Owner = Owner {
    uid: ports::PROXY_UID,
    gid: ports::PROXY_GID,
};

impl App {
    pub(super) fn spawn_verdict(&mut self) {
        let (channels, config) = (self.channels.clone(), self.inputs.config.clone());
        self.supervisor
            .spawn("verdict", SHORT, |scope| verdict::run(scope, channels, config));
    }

    pub(super) fn spawn_join(&mut self) {
        let (join, publish) = (self.inputs.join.clone(), self.channels.membership.clone());
        let problem = self.channels.join_problem.clone();
        self.supervisor
            .spawn("join", SHORT, |scope| join::run(scope, join, publish, problem));
    }

    pub(super) fn spawn_hosts(&mut self) {
        let (host, membership) = (self.inputs.host.clone(), self.channels.membership.subscribe());
        let unit = self.inputs.units.as_ref().map(|units| units.hosts.as_str());
        let writer = hosts::Writer::new(unit, &self.inputs.config.paths);
        self.supervisor
            .spawn("hosts", SHORT, |scope| hosts::run(scope, host, writer, membership));
    }

    pub(super) fn spawn_control_plane(&mut self) {
        let addresses = self.inputs.config.control_plane.addresses.clone();
        let inputs = control_plane::Inputs {
            membership: self.channels.membership.subscribe(),
            credentials: self.channels.credentials.subscribe(),
            clock: Clock::System,
        };
        let choice = self.channels.choice.clone();
        self.supervisor.spawn("control_plane", SHORT, |scope| {
            control_plane::check(scope, choice, addresses, inputs)
        });
    }

    pub(super) fn spawn_identity(&mut self) {
        let options = identity::Options {
            choice: self.channels.choice.clone(),
            host: self.inputs.host.clone(),
            config: self.inputs.config.identity.clone(),
            store: self.inputs.config.paths.identity(),
            tokens: self.inputs.join.tokens(),
            clock: Clock::System,
            problem: self.channels.identity_problem.clone(),
        };
        let (membership, publish) = (self.channels.membership.subscribe(), self.channels.credentials.clone());
        self.supervisor.spawn("identity", SHORT, |scope| {
            identity::run(scope, options, membership, publish)
        });
    }

    pub(super) fn spawn_sds(&mut self) {
        let options = identity::sds::Options {
            host: self.inputs.host.clone(),
            socket: self.inputs.config.paths.sds_socket(),
            owner: ENVOY_USER,
            refusals: self.channels.refusals.clone(),
        };
        let credentials = self.channels.credentials.subscribe();
        self.supervisor
            .spawn("sds", SHORT, |scope| identity::sds::serve(scope, options, credentials));
    }

    pub(super) fn spawn_xds(&mut self) {
        let options = xds::Options {
            host: self.inputs.host.clone(),
            socket: self.inputs.config.paths.xds_socket(),
            kept_names: self.inputs.config.paths.names(),
            owner: ENVOY_USER,
            choice: self.channels.choice.clone(),
            tokens: self.inputs.join.tokens(),
            clock: Clock::System,
            refusals: self.channels.refusals.clone(),
        };
        let inputs = xds::Inputs {
            membership: self.channels.membership.subscribe(),
            credentials: self.channels.credentials.subscribe(),
            probe: self.channels.probe.subscribe(),
        };
        let outputs = xds::Outputs {
            state: self.channels.xds.clone(),
            names: self.channels.names.clone(),
        };
        self.supervisor
            .spawn("xds", SHORT, |scope| xds::run(scope, options, inputs, outputs));
    }

    pub(super) fn spawn_dns(&mut self) {
        let options = dns::Options::new(self.inputs.host.clone(), self.channels.refusals.clone());
        let kept = std::mem::take(&mut self.inputs.kept);
        let (membership, names) = (self.channels.membership.subscribe(), self.channels.names.subscribe());
        self.supervisor
            .spawn("dns", SHORT, |scope| dns::run(scope, options, kept, membership, names));
    }

    fn envoy_options(&self) -> envoy::Options {
        let inputs = &self.inputs;
        let unit = inputs.units.as_ref().map(|units| units.envoy.clone());
        envoy::Options {
            refusals: self.channels.refusals.clone(),
            ..envoy::Options::new(inputs.host.clone(), &inputs.config, unit)
        }
    }

    pub(super) fn spawn_envoy(&mut self) {
        let options = self.envoy_options();
        let membership = self.channels.membership.subscribe();
        let container = self.channels.container.subscribe();
        let outputs = envoy::Outputs {
            state: self.channels.envoy.clone(),
            problem: self.channels.envoy_problem.clone(),
        };
        self.supervisor.spawn("envoy", 2 * SHORT, |scope| {
            envoy::run(scope, options, membership, container, outputs)
        });
    }

    pub(super) fn spawn_intercept(&mut self) {
        let options = intercept::Options::new(self.inputs.host.clone(), &self.inputs.config);
        let (membership, envoy, publish) = (
            self.channels.membership.subscribe(),
            self.channels.envoy.subscribe(),
            self.channels.intercept.clone(),
        );
        self.supervisor.spawn("intercept", SHORT, |scope| {
            intercept::run(scope, options, membership, envoy, publish)
        });
    }

    pub(super) fn spawn_workload(&mut self) -> bool {
        let Some(config) = self.inputs.config.workload.container.clone() else {
            return false;
        };
        let grace = config.stop_timeout + SHORT;
        let options = workload::Options { config };
        let (envoy, publish) = (self.channels.envoy.subscribe(), self.channels.container.clone());
        let intercept = self.intercepts().then(|| self.channels.intercept.subscribe());
        self.supervisor.spawn("workload", grace, |scope| {
            workload::run(scope, options, envoy, intercept, publish)
        });
        true
    }

    pub(super) fn intercepts(&self) -> bool {
        self.inputs.config.intercept.backend != Backend::None
    }

    pub(super) fn spawn_probe(&mut self) -> bool {
        let theirs = self.channels.membership().probe.clone();
        let Some((probe, refused)) = self.inputs.config.health.choose(theirs.as_ref()) else {
            return false;
        };
        let unit = self.inputs.units.as_ref().map(|units| units.agent.clone());
        let options = health::Options { probe, refused, unit };
        let (membership, envoy, publish) = (
            self.channels.membership.subscribe(),
            self.channels.envoy.subscribe(),
            self.channels.probe.clone(),
        );
        self.supervisor.spawn("health", SHORT, |scope| {
            health::run(scope, options, membership, envoy, publish)
        });
        true
    }

    pub(super) fn spawn_drain(&mut self) {
        let options = self.envoy_options();
        let grace = envoy::drain_grace(&self.inputs.config.envoy, &self.channels.membership()) + SHORT;
        let (membership, publish) = (self.channels.membership.subscribe(), self.channels.envoy.clone());
        self.supervisor.spawn("drain", grace, |scope| {
            envoy::drain(scope, options, membership, publish)
        });
    }
}
