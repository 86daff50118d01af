//! `[workload]`, or `[[workload]]` for each application of a VM that has several.

mod checks;

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::health::LIFE;
use super::{ContainerConfig, PortMapping, ProbeConfig, ServiceConfig};

/// The name of an application that has none: of the only one of a VM, or of the first of several.
const DEFAULT_NAME: &str = "container";

/// The applications of this VM, which serve the mesh as one workload.
#[derive(Clone, Debug, PartialEq)]
pub struct Workloads(Vec<WorkloadConfig>);

/// One application of this VM.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadConfig {
    /// The name by which it is told from the others.
    pub name: String,
    /// The application's container; where there is no service either, the operator runs it.
    pub container: Option<ContainerConfig>,
    /// The application's systemd service.
    pub service: Option<ServiceConfig>,
    /// A probe of its own, beside that of the VM as a whole.
    pub probe: Option<ProbeConfig>,
    /// The probe whose failure has the application started again.
    pub liveness_probe: Option<ProbeConfig<LIFE>>,
    /// The probe before whose first success the application is not judged.
    pub startup_probe: Option<ProbeConfig<LIFE>>,
}

impl Default for WorkloadConfig {
    fn default() -> Self {
        Self {
            name: DEFAULT_NAME.to_owned(),
            container: None,
            service: None,
            probe: None,
            liveness_probe: None,
            startup_probe: None,
        }
    }
}

impl Default for Workloads {
    fn default() -> Self {
        Self(vec![WorkloadConfig::default()])
    }
}

impl Workloads {
    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &WorkloadConfig> {
        self.0.iter()
    }

    /// The only one; `None` where there are several.
    pub fn only(&self) -> Option<&WorkloadConfig> {
        match self.0.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The containers among them.
    pub fn containers(&self) -> impl Iterator<Item = &ContainerConfig> {
        self.iter().filter_map(|workload| workload.container.as_ref())
    }

    /// The systemd services among them.
    pub fn services(&self) -> impl Iterator<Item = &ServiceConfig> {
        self.iter().filter_map(|workload| workload.service.as_ref())
    }

    /// The ports that their containers publish on Docker's bridge.
    pub fn published(&self) -> impl Iterator<Item = &PortMapping> {
        self.containers().flat_map(ContainerConfig::published)
    }

    /// The table of the one at `index`, as the operator wrote it.
    pub(crate) fn table(&self, index: usize) -> String {
        match self.only() {
            Some(_) => "workload".to_owned(),
            None => format!("workload[{index}]"),
        }
    }
}

impl<'de> Deserialize<'de> for Workloads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrSeveral;

        impl<'de> Visitor<'de> for OneOrSeveral {
            type Value = Workloads;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("table")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Workloads, A::Error> {
                let only = WorkloadConfig::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Workloads(vec![only]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Workloads, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(seq)).map(Workloads)
            }
        }

        deserializer.deserialize_any(OneOrSeveral)
    }
}

impl Serialize for Workloads {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.only() {
            Some(only) => only.serialize(serializer),
            None => self.0.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    const BOTH: &str = "[join]\ndirectory = { path = '/b' }\n\
                        [[workload]]\n[workload.container]\nname = 'web'\nimage = 'web:1'\nports = ['80:80']\n\
                        [[workload]]\nname = 'cache'\n";

    fn parse(more: &str) -> Result<Config, String> {
        Config::parse(Path::new("c.toml"), &format!("{BOTH}{more}")).map_err(|error| error.to_string())
    }

    #[test]
    fn applications_are_several_or_the_one_that_is_written_plainly() {
        let several =
            parse("[workload.service]\nunit = 'cache.service'\n[workload.probe]\ntcp = { port = 81 }\n").unwrap();
        let names: Vec<_> = several.workloads.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["container", "cache"]);
        assert_eq!(several.workloads.services().count(), 1);
        let shown = serde_json::to_value(&several).unwrap();
        assert_eq!(
            serde_json::from_value::<Config>(shown).unwrap().workloads,
            several.workloads
        );
        let settings = several.settings();
        let unit = settings.iter().find(|it| it.key == "workload[1].service.unit").unwrap();
        assert_eq!(unit.origin, "c.toml:11:1");

        let container = "[workload.container]\nname = 'web'\nimage = 'web:1'\n";
        let written = |above: &str| {
            let text = format!("[join]\ndirectory = {{ path = '/b' }}\n{above}{container}");
            Config::parse(Path::new("c.toml"), &text).unwrap().workloads
        };
        assert_eq!(written(""), written("[[workload]]\n"));
    }

    #[test]
    fn applications_share_no_name_and_no_port_and_each_fault_has_its_place() {
        let named = |name: &str| format!("[workload.container]\nname = '{name}'\nimage = 'db:1'\n");
        let container = |keys: &str| named("db") + keys + "\n";
        let name_of_second = "c.toml:11:1: workload[1].container.name: ";
        for (more, place, words) in [
            (
                container("ports = ['80:81']"),
                "c.toml:13:1: workload[1].container.ports: ",
                "port 80 of the VM",
            ),
            (
                container("ports = ['x']"),
                "c.toml:13:9: workload[1].container.ports: ",
                "such as",
            ),
            (
                container("imagee = 'x'"),
                "c.toml:13:1: workload[1].container.imagee: ",
                "did you mean \"image\"",
            ),
            (
                container("cloud_identity = true"),
                "c.toml:13:1: workload[1].container.cloud_identity",
                "on one bridge",
            ),
            (
                container("docker_socket = '/s'"),
                "c.toml:13:1: workload[1].container.docker_socket",
                "one dockerd",
            ),
            (named("web"), name_of_second, "another application"),
            (named("web-next"), name_of_second, "another application"),
            (
                "[[workload]]\nname = 'cache'\n".to_owned(),
                "c.toml:11:1: workload[2].name: ",
                "another application",
            ),
            (
                "[[workload]]\nname = 'A b'\n".to_owned(),
                "c.toml:11:1: workload[2].name",
                "lower-case",
            ),
            (
                "[workload.liveness_probe]\ntcp = { port = 1 }\n".to_owned(),
                "c.toml:10:11: workload[1].liveness_probe: ",
                "has to run it",
            ),
            (
                "[health.liveness_probe]\ntcp = { port = 80 }\n".to_owned(),
                "c.toml:10:9: health.liveness_probe: ",
                "[[workload]]",
            ),
        ] {
            let error = parse(&more).unwrap_err();
            assert!(error.contains(place) && error.contains(words), "{more}: {error}");
        }
    }
}
