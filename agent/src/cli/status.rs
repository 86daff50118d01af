//! `status`: from the running agent, or from what the host shows.

use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;

use super::configuration::Places;
use super::{Output, Verdict, say};
use crate::config::PathsConfig;
use crate::facts::{ContainerState, ControlPlanes, EnvoyState, Health, ProbeState, XdsState};
use crate::host::Host;
use crate::status::{Agent, IdentityStatus, PROMPTLY, Status, ask};
use crate::{envoy, identity, intercept};

pub(super) fn run(path: &Path, output: Output) -> Result<Verdict> {
    // Without a readable configuration there is still something to say: about the default directories.
    let host = Host::system();
    let config = Places::new(path, &host).and_then(|places| places.at_hand());
    let paths = config.ok().flatten().map(|config| config.paths).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = match runtime.block_on(ask(&paths.status_socket(), PROMPTLY)) {
        Ok(status) => status,
        Err(reason) => offline(&host, &paths, reason),
    };
    say(&match output {
        Output::Text => status.to_text(SystemTime::now()),
        Output::Json => serde_json::to_string_pretty(&status)? + "\n",
    })?;
    Ok(if status.health.ready && status.health.problems.is_empty() {
        Verdict::Fine
    } else {
        Verdict::Wrong
    })
}

/// What can be told without the agent. Nothing here waits for anybody.
fn offline(host: &Host, paths: &PathsConfig, reason: String) -> Status {
    let identity = identity::stored(host, &paths.identity()).ok().flatten();
    let envoy = envoy::running(host, paths).map_or_else(EnvoyState::default, |pid| EnvoyState::Starting { pid });
    let interception = intercept::offline(host);
    let problems = vec![format!(
        "the agent is {reason}: `systemctl status istio-vm-agent` and `journalctl -u istio-vm-agent` say why"
    )];
    Status {
        agent: Agent::NotAnswering { reason },
        health: Health { ready: false, problems },
        identity: identity.as_ref().map(IdentityStatus::from),
        control_planes: ControlPlanes::default(),
        xds: XdsState::default(),
        envoy,
        interception,
        container: ContainerState::Waiting {
            reason: "only a running agent knows".to_owned(),
        },
        probe: ProbeState::Unknown,
        refused: Vec::new(),
    }
}
