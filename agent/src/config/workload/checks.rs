//! Values that `[workload]`, or each `[[workload]]`, may not have, and those that two of them can't share.

use std::collections::BTreeSet;

use super::{WorkloadConfig, Workloads};
use crate::config::{Checks, ContainerConfig, Network, ServiceConfig};

/// Longest name of an application.
const LONGEST_NAME: usize = 63;

impl Workloads {
    pub(in crate::config) fn checks(&self) -> Checks {
        let of_each = self.iter().enumerate().flat_map(|(index, workload)| {
            let table = self.table(index);
            let checks = workload.checks().into_iter();
            checks.map(move |check| check.map_err(|problem| problem.replacen("workload", &table, 1)))
        });
        of_each.chain(self.check_apart()).collect()
    }

    /// Checks of the values that two workloads can't share.
    fn check_apart(&self) -> Checks {
        let mut seen = BTreeSet::new();
        let mut checks = Vec::new();
        let first = self.containers().next();
        let is_on_bridge = |container: &&ContainerConfig| container.network == Network::Bridge;
        let first_on_bridge = self.containers().find(is_on_bridge);
        let is_one_of_several = self.only().is_none();
        for (index, workload) in self.iter().enumerate() {
            let table = self.table(index);
            let mut once = |key: &str, value: String| {
                if !seen.insert((key.to_owned(), value.clone())) {
                    checks.push(Err(format!(
                        "{table}.{key}: {value} is of another application already: name another"
                    )));
                }
            };
            once("name", workload.name.clone());
            if is_one_of_several && workload.is_empty() {
                checks.push(Err(format!(
                    "{table}: has no container, no service and no probe: give it one of them, or remove it"
                )));
                continue;
            }
            if let Some(service) = &workload.service {
                once("service.unit", service.unit.clone());
            }
            let Some(container) = &workload.container else { continue };
            // The names that it has while another takes its place are its own, too.
            for suffix in ["", "-next", "-rejected"] {
                once("container.name", format!("{}{suffix}", container.name));
            }
            // Of one container a port that is there twice is told with its other faults.
            let ports: BTreeSet<u16> = container.published().iter().map(|port| port.host).collect();
            for port in ports {
                once("container.ports", format!("port {port} of the VM"));
            }
            if first.is_some_and(|first| first.docker_socket != container.docker_socket) {
                checks.push(Err(format!(
                    "{table}.container.docker_socket = {:?}: all containers are of one dockerd: name the same",
                    container.docker_socket
                )));
            }
            let differs = |first: &ContainerConfig| first.cloud_identity != container.cloud_identity;
            if is_on_bridge(&container) && first_on_bridge.is_some_and(differs) {
                checks.push(Err(format!(
                    "{table}.container.cloud_identity = {}: the rules can't tell containers on one bridge apart: set the \
                     same in all",
                    container.cloud_identity
                )));
            }
        }
        checks
    }
}

impl WorkloadConfig {
    fn is_empty(&self) -> bool {
        self.container.is_none() && self.service.is_none() && self.probe.is_none()
    }

    fn checks(&self) -> Checks {
        let mut checks = vec![self.check_name(), self.check_life()];
        if self.container.is_some() && self.service.is_some() {
            checks.push(Err(
                "workload.service: the application is a container already, by [workload.container]: remove one of them, or \
                 give it an entry of its own: [[workload]]"
                    .to_owned(),
            ));
        }
        checks.extend(self.container.iter().flat_map(ContainerConfig::checks));
        checks.extend(self.service.iter().flat_map(ServiceConfig::checks));
        let probe = self.probe.iter();
        checks.extend(probe.flat_map(|probe| probe.checks("workload.probe")));
        let liveness = self.liveness_probe.iter();
        checks.extend(liveness.flat_map(|probe| probe.checks("workload.liveness_probe")));
        let startup = self.startup_probe.iter();
        checks.extend(startup.flat_map(|probe| probe.checks("workload.startup_probe")));
        checks
    }

    /// A name that can be a file's and a label's.
    fn check_name(&self) -> Result<(), String> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = (1..=LONGEST_NAME).contains(&self.name.len()) && self.name.bytes().all(is_plain);
        match is_name {
            true => Ok(()),
            false => Err(format!(
                "workload.name = {:?}: must be 1 to {LONGEST_NAME} lower-case letters, digits and '-', such as \"catalog\"",
                self.name
            )),
        }
    }

    /// Probes of the application's life are of use to whoever can start it again.
    fn check_life(&self) -> Result<(), String> {
        let is_ours = self.container.is_some() || self.service.is_some();
        let keys = [
            ("liveness_probe", self.liveness_probe.is_some()),
            ("startup_probe", self.startup_probe.is_some()),
        ];
        match keys.into_iter().find(|(_, is_there)| *is_there && !is_ours) {
            Some((key, _)) => Err(format!(
                "workload.{key}: the agent starts the application again when it fails, and so has to run it: give it a \
                 container or a service, or put it into probe"
            )),
            None => Ok(()),
        }
    }
}
