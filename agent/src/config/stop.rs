//! The time of a stop: whatever it waits for comes one after the other, and has the unit's time together.

use std::time::Duration;

use humantime::format_duration;

use super::Config;

/// TimeoutStopSec= of istio-vm-agent.service, after which systemd kills what is left.
const UNIT: Duration = Duration::from_secs(120);
/// Time for the rest of a stop: the rules, Envoy's own end, the files.
const REST: Duration = Duration::from_secs(10);
/// Time until istiod has taken the VM out of the endpoints, at the longest; propagation comes after it.
pub(crate) const LONGEST_LEAVE: Duration = Duration::from_secs(15);
/// The drain of a mesh that says nothing of it, at the longest (istio/pkg/config/mesh/mesh.go).
const MESH_DRAIN: Duration = Duration::from_secs(45);

impl Config {
    /// Leaving the mesh, the drain and the container's end fit into the unit's time. The error is about the longest.
    pub(super) fn check_stop(&self) -> Result<(), String> {
        let propagation = self.control_plane.propagation;
        let drain = self.envoy.drain.unwrap_or(MESH_DRAIN);
        let (of_the_application, stop) = self.longest_stop();
        if LONGEST_LEAVE + propagation + drain + stop + REST <= UNIT {
            return Ok(());
        }
        let mut written = [
            ("control_plane.propagation", propagation),
            ("envoy.drain", self.envoy.drain.unwrap_or_default()),
            (of_the_application.as_str(), stop),
        ];
        written.sort_by_key(|(_, time)| *time);
        let [.., (key, time)] = written;
        Err(format!(
            "{key} = \"{}\": control_plane.propagation ({}), envoy.drain ({}, the mesh's unless it is set) and \
             {of_the_application} ({}) must be {} or less together: {} after a stop the unit kills what is left",
            format_duration(time),
            format_duration(propagation),
            format_duration(drain),
            format_duration(stop),
            format_duration(UNIT - LONGEST_LEAVE - REST),
            format_duration(UNIT)
        ))
    }

    /// Time that the applications' end takes: containers end beside each other, and so do services, which end first. The key
    /// is of the one that takes longest.
    fn longest_stop(&self) -> (String, Duration) {
        let (mut containers, mut services, mut key) = (Duration::ZERO, Duration::ZERO, None);
        let mut longest = Duration::ZERO;
        for (index, workload) in self.workloads.iter().enumerate() {
            let container = workload.container.as_ref().map(|it| ("container", it.stop_timeout));
            let service = workload.service.as_ref().map(|it| ("service", it.stop_timeout));
            for (kind, time) in container.into_iter().chain(service) {
                let of_kind = if kind == "container" {
                    &mut containers
                } else {
                    &mut services
                };
                *of_kind = time.max(*of_kind);
                if time > longest || key.is_none() {
                    (longest, key) = (
                        time,
                        Some(format!("{}.{kind}.stop_timeout", self.workloads.table(index))),
                    );
                }
            }
        }
        let key = key.unwrap_or_else(|| "workload.container.stop_timeout".to_owned());
        (key, containers + services)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SERVICE: &str = include_str!("../../../systemd/istio-vm-agent.service");

    fn check(keys: &str) -> Result<Config, String> {
        let text = format!(
            "[join]\ndirectory = {{ path = '/b' }}\n[workload.container]\nname = 'web'\nimage = 'web:1'\n{keys}"
        );
        Config::parse(Path::new("c.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn unit_gives_a_stop_the_time_that_the_configuration_may_take() {
        let timeout = format!("\nTimeoutStopSec={}s\n", UNIT.as_secs());
        assert!(SERVICE.contains(&timeout), "the unit has another time than {UNIT:?}");
    }

    #[test]
    fn stop_that_the_unit_would_cut_short_is_refused_by_its_longest_part() {
        check("").unwrap();
        // 40 s and the defaults of the drain (45 s) and of the container's end (10 s).
        check("[control_plane]\npropagation = '40s'\n").unwrap();
        for (keys, longest) in [
            (
                "[control_plane]\npropagation = '41s'\n[envoy]\n",
                "control_plane.propagation = \"41s\"",
            ),
            (
                "[control_plane]\npropagation = '365days'\n",
                "control_plane.propagation = \"",
            ),
            ("[envoy]\ndrain = '84s'\n", "envoy.drain = \"1m 24s\""),
            ("stop_timeout = '49s'\n", "workload.container.stop_timeout = \"49s\""),
        ] {
            let error = check(keys).unwrap_err();
            assert!(error.contains(longest) && error.contains("1m 35s or less"), "{error}");
        }
    }
}
