//! Values that `[workload.container]` may not have.

use std::collections::BTreeSet;
use std::path::{Component, Path};
use std::time::Duration;

use humantime::format_duration;

use super::names::{is_signal, is_user, problem_of_capability};
use super::{ContainerConfig, Network, SECRETS_TARGET, ulimit};
use crate::config::layout::check_socket;
use crate::config::{Checks, Size, absolute, image, is_variable, ports};

/// Docker refuses less.
const LEAST_MEMORY: Size = Size::mebibytes(6);
/// The longest name, in bytes: files and other containers are named after it, and have room for a suffix (NAME_MAX is 255).
const LONGEST_NAME: usize = 128;
/// Prefix of the labels by which the agent knows its containers.
const OWN_LABELS: &str = "io.istio.vm-agent.";
/// The longest that an application may take to be well, and its predecessor to serve beside it.
const LONGEST_STARTUP: Duration = Duration::from_secs(24 * 60 * 60);

impl ContainerConfig {
    pub(in crate::config) fn checks(&self) -> Checks {
        let mut checks = vec![self.check_name(), self.check_image(), self.check_env()];
        if self.network == Network::Host && !self.ports.is_empty() {
            checks.push(Err(
                "workload.container.ports: a container on network \"host\" publishes no ports: remove them".to_owned(),
            ));
        }
        checks.extend(self.check_ports());
        checks.push(check_socket(
            "workload.container.docker_socket",
            Path::new(&self.docker_socket),
        ));
        checks.extend(self.check_files());
        checks.push(self.check_targets());
        checks.push(self.check_user());
        checks.push(self.check_labels());
        checks.push(self.check_stop_signal());
        checks.push(self.check_capabilities());
        checks.push(self.check_command());
        checks.push(self.check_limits());
        checks.push(self.check_startup());
        checks
    }

    /// Absolute paths, and secrets whose names tell them apart.
    fn check_files(&self) -> Checks {
        let mut checks: Checks = self
            .env_files
            .iter()
            .map(|path| absolute("workload.container.env_files", path))
            .collect();
        let registry_config = self.registry_config.iter();
        checks.extend(registry_config.map(|path| absolute("workload.container.registry_config", path)));
        let mut names = BTreeSet::new();
        for path in &self.secrets {
            const KEY: &str = "workload.container.secrets";
            checks.push(absolute(KEY, path));
            checks.push(match path.file_name() {
                None => Err(format!("{KEY}: {path:?} names no file")),
                Some(name) if !names.insert(name) => Err(format!(
                    "{KEY}: {path:?}: another one is {SECRETS_TARGET}/{} too: rename one of the files",
                    name.display()
                )),
                Some(_) => Ok(()),
            });
        }
        checks
    }

    /// Places in the container, each once.
    fn check_targets(&self) -> Result<(), String> {
        let mounts = self.mounts.iter().map(|mount| ("mounts", mount.target.as_str()));
        let tmpfs = self.tmpfs.iter().map(|target| ("tmpfs", target.as_str()));
        let mut seen = BTreeSet::new();
        for (key, target) in mounts.chain(tmpfs) {
            let path = Path::new(target);
            let is_plain = path
                .components()
                .skip(1)
                .all(|part| matches!(part, Component::Normal(_)));
            let has_signs =
                target.contains(|c: char| c.is_control() || ":,".contains(c)) || target.trim_end() != target;
            if !path.is_absolute() || !is_plain || has_signs || path.parent().is_none() || path.starts_with("/proc") {
                return Err(format!(
                    "workload.container.{key}: {target:?} is no place in the container, such as \"/var/lib/data\""
                ));
            }
            let is_ours = !self.secrets.is_empty() && path.starts_with(SECRETS_TARGET);
            if is_ours || !seen.insert(path) {
                return Err(format!(
                    "workload.container.{key}: {target:?} is taken by another mount, or by the secrets: name another place"
                ));
            }
        }
        Ok(())
    }

    fn check_user(&self) -> Result<(), String> {
        match self.user.as_deref().filter(|user| !is_user(user)) {
            Some(user) => Err(format!(
                "workload.container.user = {user:?}: must be USER or USER:GROUP, such as \"1000:1000\" or \"www-data\""
            )),
            None => Ok(()),
        }
    }

    fn check_labels(&self) -> Result<(), String> {
        match self
            .labels
            .keys()
            .find(|name| name.is_empty() || name.contains(char::is_control) || name.starts_with(OWN_LABELS))
        {
            Some(name) => Err(format!(
                "workload.container.labels: {name:?} can't be set: a label has a name of one line, and {OWN_LABELS}* are the \
                 agent's"
            )),
            None => Ok(()),
        }
    }

    fn check_stop_signal(&self) -> Result<(), String> {
        match self.stop_signal.as_deref() {
            Some(signal) if !is_signal(signal) => Err(format!(
                "workload.container.stop_signal = {signal:?}: must be a signal, such as \"SIGTERM\" or \"SIGQUIT\""
            )),
            _ => Ok(()),
        }
    }

    fn check_name(&self) -> Result<(), String> {
        let first = self.name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = self
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        // Docker refuses a name of one character, too.
        match first && rest && (2..=LONGEST_NAME).contains(&self.name.len()) {
            true => Ok(()),
            false => Err(format!(
                "workload.container.name = {:?}: Docker wants [a-zA-Z0-9][a-zA-Z0-9_.-]+, at most {LONGEST_NAME} \
                 of them, such as \"productcatalog\"",
                self.name
            )),
        }
    }

    /// A name, and of which image of that name.
    fn check_image(&self) -> Result<(), String> {
        let unpinned = "has neither a tag nor a digest, and Docker would take whatever is \"latest\": write NAME:TAG, or \
                        NAME@sha256:…";
        let is_unpinned = !image::is_pinned(&self.image);
        match image::problem(&self.image).or_else(|| is_unpinned.then_some(unpinned)) {
            Some(problem) => Err(format!("workload.container.image = {:?}: {problem}", self.image)),
            None => Ok(()),
        }
    }

    fn check_env(&self) -> Result<(), String> {
        match self.env.keys().find(|name| !is_variable(name)) {
            Some(name) => Err(format!(
                "workload.container.env: {name:?} can't be a variable's name: it is of ASCII, not empty, and has no '=' and \
                 no blank"
            )),
            None => match self.env.iter().find(|(_, value)| value.contains('\0')) {
                Some((name, _)) => Err(format!(
                    "workload.container.env.{name}: has a NUL, which no variable holds: take it out"
                )),
                None => Ok(()),
            },
        }
    }

    fn check_ports(&self) -> Checks {
        const KEY: &str = "workload.container.ports";
        let mut checks = Vec::new();
        for (index, port) in self.ports.iter().enumerate() {
            let free = ports::check_free(port.host);
            checks.push(free.map_err(|problem| format!("{KEY}: \"{port}\": {problem}")));
            if self.ports.iter().take(index).any(|earlier| earlier.host == port.host) {
                checks.push(Err(format!(
                    "{KEY}: \"{port}\": port {} of the VM is there twice: remove one of them",
                    port.host
                )));
            }
        }
        checks
    }

    fn check_capabilities(&self) -> Result<(), String> {
        let named = [
            ("cap_drop", self.cap_drop.as_deref().unwrap_or_default()),
            ("cap_add", &self.cap_add),
        ];
        for (key, names) in named {
            if let Some(problem) = names.iter().find_map(|name| problem_of_capability(name)) {
                return Err(format!("workload.container.{key}: {problem}"));
            }
        }
        let dropped = self.cap_drop.as_deref().unwrap_or_default();
        match self.cap_add.iter().find(|name| dropped.contains(name)) {
            Some(both) => Err(format!(
                "workload.container.cap_add: {both:?} is in cap_drop too: take it out of one of them"
            )),
            None => Ok(()),
        }
    }

    fn check_command(&self) -> Result<(), String> {
        let words = self.command.as_deref().unwrap_or_default();
        match words.first().is_some_and(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
            true => Err("workload.container.command: must begin with a program, and have no NUL".to_owned()),
            false => Ok(()),
        }
    }

    fn check_startup(&self) -> Result<(), String> {
        match (Duration::from_secs(1)..=LONGEST_STARTUP).contains(&self.startup_timeout) {
            true => Ok(()),
            false => Err(format!(
                "workload.container.startup_timeout = \"{}\": must be from 1s to {}",
                format_duration(self.startup_timeout),
                format_duration(LONGEST_STARTUP)
            )),
        }
    }

    fn check_limits(&self) -> Result<(), String> {
        if let Some(problem) = self.ulimits.keys().find_map(|name| ulimit::problem(name)) {
            return Err(format!("workload.container.ulimits: {problem}"));
        }
        if let Some(memory) = self.memory.filter(|memory| *memory < LEAST_MEMORY) {
            return Err(format!(
                "workload.container.memory = \"{memory}\": Docker wants {LEAST_MEMORY} or more"
            ));
        }
        if let Some(cpus) = self.cpus.filter(|cpus| !(0.01..=4096.0).contains(cpus)) {
            return Err(format!("workload.container.cpus = {cpus}: must be from 0.01 to 4096"));
        }
        if self.pids_limit == 0 {
            return Err("workload.container.pids_limit = 0: a container has a process at least".to_owned());
        }
        if self.log_size.bytes() < 2 {
            return Err(
                "workload.container.log_size: must be two bytes at least, a byte for each of two files".to_owned(),
            );
        }
        Ok(())
    }
}
