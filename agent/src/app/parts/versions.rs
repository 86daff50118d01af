//! The versions of the agent, of Envoy and of Istio, as a part that runs nothing.

use serde::{Deserialize, Serialize};

use crate::envoy::ISTIO_VERSION;
use crate::part::{Metric, MetricKind, Part, Sample, Section, State};
use crate::release::{COMMIT, VERSION};

/// Shows the versions.
#[derive(Debug)]
pub(super) struct VersionsPart;

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct Versions {
    /// Version of the agent.
    agent: String,
    /// Commit that the agent was built from.
    commit: String,
    /// Release of Istio whose proxy istiod takes the agent and Envoy for.
    istio: String,
    /// Version of the Envoy that serves, when it has said so.
    envoy: Option<String>,
}

impl Versions {
    fn of(envoy: Option<String>) -> Self {
        Self {
            agent: VERSION.to_owned(),
            commit: COMMIT.to_owned(),
            istio: ISTIO_VERSION.to_owned(),
            envoy,
        }
    }
}

const SECTION: State<Option<Versions>> = State {
    key: "versions",
    title: "Versions",
    live: |channels| Some(Versions::of(channels.envoy_version.borrow().clone())),
    // That of this command may be another than that of the agent that was.
    offline: |_| None,
    lines: |versions, _| versions.iter().map(line).collect(),
};

impl Part for VersionsPart {
    fn name(&self) -> &'static str {
        "versions"
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        &[BUILD, OWN_BUILD]
    }
}

/// The build, as each of Istio's programs says it (istio/pkg/version).
const BUILD: Metric = Metric {
    name: "istio_build",
    help: "1, with the component and the release of Istio that it is taken for.",
    kind: MetricKind::Gauge,
    labels: &["component", "tag"],
    read: |_, _| vec![Sample::labeled(["vm-agent", ISTIO_VERSION], 1.0)],
};

const OWN_BUILD: Metric = Metric {
    name: "istio_vm_agent_info",
    help: "1, with the versions of the agent and of the Envoy that serves.",
    kind: MetricKind::Gauge,
    labels: &["version", "commit", "envoy"],
    read: |channels, _| {
        let envoy = channels.envoy_version.borrow().clone().unwrap_or_default();
        vec![Sample::labeled([VERSION, COMMIT, &envoy], 1.0)]
    },
};

fn line(versions: &Versions) -> String {
    let Versions {
        agent,
        commit,
        istio,
        envoy,
    } = versions;
    let envoy = envoy.as_deref().unwrap_or("not known yet");
    format!("agent {agent} ({commit}), Envoy {envoy}, as Istio {istio}; `istio-vm-agent check` asks istiod for its own")
}
