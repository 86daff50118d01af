//! Limits that Docker changes of a container that runs: memory, processors, processes.

use std::fmt;

use bollard::models::{ContainerUpdateBody, HostConfig};

use crate::config::ContainerConfig;

/// The limits that hold without a new container.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::workload) struct Limits {
    /// Memory in bytes; `None`: as much as there is.
    memory: Option<i64>,
    /// Processors in billionths; `None`: all.
    nano_cpus: Option<i64>,
    /// Processes and threads; `None`: as many as there can be.
    pids: Option<i64>,
}

impl Limits {
    pub(in crate::workload) fn wanted(config: &ContainerConfig) -> Self {
        Self {
            memory: config.memory.and_then(|memory| i64::try_from(memory.bytes()).ok()),
            // A float's conversion saturates.
            nano_cpus: config.cpus.map(|cpus| (cpus * 1e9) as i64),
            pids: Some(config.pids_limit.into()),
        }
    }

    /// The limits that a container has. Docker says 0 or -1 where there is none.
    pub(in crate::workload) fn there(host: &HostConfig) -> Self {
        let limit = |number: Option<i64>| number.filter(|number| *number > 0);
        Self {
            memory: limit(host.memory),
            nano_cpus: limit(host.nano_cpus),
            pids: limit(host.pids_limit),
        }
    }

    pub(in crate::workload) fn host_config(self) -> HostConfig {
        HostConfig {
            memory: self.memory,
            nano_cpus: self.nano_cpus,
            pids_limit: self.pids,
            ..HostConfig::default()
        }
    }

    /// True when a container with these limits can be given those. Docker changes limits, and takes none away.
    pub(in crate::workload) fn can_become(self, wanted: Self) -> bool {
        let keeps = |there: Option<i64>, wanted: Option<i64>| there.is_none() || wanted.is_some();
        keeps(self.memory, wanted.memory) && keeps(self.nano_cpus, wanted.nano_cpus)
    }

    /// The body of `POST /containers/{id}/update`.
    pub(in crate::workload) fn update_body(self) -> ContainerUpdateBody {
        ContainerUpdateBody {
            memory: self.memory,
            // As much again, which is what Docker gives a new container; with the old one a larger limit is refused.
            memory_swap: self.memory.map(|memory| memory.saturating_mul(2)),
            nano_cpus: self.nano_cpus,
            pids_limit: self.pids,
            ..ContainerUpdateBody::default()
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = |number: Option<i64>| number.map_or_else(|| "all".to_owned(), |number| number.to_string());
        let cpus = self
            .nano_cpus
            .map_or_else(|| "all".to_owned(), |cpus| (cpus as f64 / 1e9).to_string());
        let (memory, pids) = (limit(self.memory), limit(self.pids));
        write!(f, "memory {memory} bytes, processors {cpus}, processes {pids}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(extra: &str) -> Limits {
        let text = format!("name = 'web'\nimage = 'web:1'\n{extra}");
        Limits::wanted(&toml::from_str(&text).unwrap())
    }

    #[test]
    fn limits_change_in_place_and_never_end_there() {
        let (none, some) = (wanted(""), wanted("memory = '1g'\ncpus = 1.5"));
        assert!(none.can_become(some) && some.can_become(wanted("memory = '2g'\ncpus = 1")));
        assert!(!some.can_become(none) && !some.can_become(wanted("memory = '1g'")));
        let body = wanted("memory = '1g'\npids_limit = 9").update_body();
        assert_eq!((body.memory, body.memory_swap), (Some(1 << 30), Some(2 << 30)));
        assert_eq!((body.nano_cpus, body.pids_limit), (None, Some(9)));
    }

    #[test]
    fn limits_that_docker_gives_are_those_that_were_wanted() {
        for extra in ["", "memory = '1g'\ncpus = 0.5\npids_limit = 7"] {
            let limits = wanted(extra);
            assert_eq!(Limits::there(&limits.host_config()), limits);
        }
        let unlimited = HostConfig {
            memory: Some(0),
            pids_limit: Some(-1),
            ..HostConfig::default()
        };
        assert_eq!(Limits::there(&unlimited), Limits::default());
    }
}
