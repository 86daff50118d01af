//! Each thing that `check` looks at.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::SystemTime;

use rustix::thread::{CapabilitySet, capabilities};

use super::{NETWORK_TIMEOUT, credentials, versions};
use crate::app::parts;
use crate::cli::exposure::{Exposure, exposures};
use crate::config::{Config, ports};
use crate::control_plane;
use crate::control_plane::token::TokenSource;
use crate::facts::Membership;
use crate::host::Host;
use crate::part::{Finding, Level, Site};
use crate::{sidecar, status};

pub(super) async fn gather(site: &Site, membership: &Membership, tokens: Option<&dyn TokenSource>) -> Vec<Finding> {
    let Site { config, host, .. } = site;
    let now = SystemTime::now();
    let mut findings = vec![privileges()];
    let (envoy, version) = super::envoy::finding(config, host).await;
    findings.push(envoy);
    for part in parts(None) {
        findings.extend(part.check(site, membership).await);
    }
    findings.extend(sidecar(host));
    findings.extend(interrupted_switch(config, host));
    findings.extend(credentials::findings(config, host, membership, tokens, now).await);
    let only = [membership.discovery_address.clone()];
    let configured = &config.control_plane.addresses;
    let addresses = if configured.is_empty() {
        &only
    } else {
        configured.as_slice()
    };
    findings.extend(control_planes(addresses, membership, now).await);
    findings.extend(authority(membership, now).await);
    if let Some(version) = version {
        let certificate = credentials::certificate(config, host, membership, now);
        let certificate = certificate.as_ref();
        findings.extend(versions::finding(addresses, membership, certificate, tokens, &version, now).await);
    }
    if status::ask(&config.paths.status_socket(), status::BUSY_TIMEOUT)
        .await
        .is_err()
    {
        findings.push(free_ports(host));
    }
    findings
}

fn privileges() -> Finding {
    const NAME: &str = "privileges";
    let wanted = CapabilitySet::NET_ADMIN | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::CHOWN;
    match capabilities(None) {
        Ok(sets) if sets.effective.contains(wanted) => Finding::ok(NAME, "all needed capabilities are there"),
        Ok(sets) => {
            let missing = wanted.difference(sets.effective);
            Finding::failed(
                NAME,
                format!("missing {missing:?}: run as root, or give the unit these capabilities"),
            )
        }
        Err(error) => Finding::failed(NAME, format!("failed to read this process's capabilities: {error}")),
    }
}

/// Files that are open to others than root.
pub(super) fn exposed(config: &Config, path: &Path, host: &Host) -> Vec<Finding> {
    let found = exposures(config, path, host).into_iter();
    let finding = |exposure| match exposure {
        Exposure::Writable(detail) => Finding::failed("files", detail),
        Exposure::Readable(detail) => Finding::warning("files", detail),
    };
    found.map(finding).collect()
}

/// The finding that the switch is the remedy of.
pub(super) const SIDECAR: &str = "istio-sidecar";

/// A switch from it that nobody has brought to an end.
fn interrupted_switch(config: &Config, host: &Host) -> Option<Finding> {
    match sidecar::is_interrupted(host, &config.paths.sidecar_backup()) {
        Ok(false) => None,
        Ok(true) => Some(Finding::failed(
            SIDECAR,
            "the switch from Istio's own agent was interrupted: go on with `istio-vm-agent import --switch`, \
             or go back with `istio-vm-agent import --undo`",
        )),
        Err(error) => Some(Finding::warning(SIDECAR, format!("{error:#}"))),
    }
}

/// Istio's own agent, when it is on this VM.
pub(super) fn sidecar(host: &Host) -> Option<Finding> {
    let found = match sidecar::find(host) {
        Ok(found) => found?,
        Err(error) => return Some(Finding::warning(SIDECAR, format!("failed to look for it: {error}"))),
    };
    Some(match found.activity() {
        Some(activity) => Finding::failed(SIDECAR, format!("Istio's own agent {activity}: {}", found.remedy())),
        None => Finding::ok(SIDECAR, "Istio's own agent is installed, and is not active"),
    })
}

/// One that answers is enough to join.
async fn control_planes(addresses: &[String], membership: &Membership, now: SystemTime) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in addresses {
        findings.push(control_plane(address, membership, now).await);
    }
    if findings.iter().any(|finding| finding.level == Level::Ok) {
        for failed in findings.iter_mut().filter(|finding| finding.level == Level::Failed) {
            failed.level = Level::Warning;
        }
    }
    findings
}

async fn control_plane(address: &str, membership: &Membership, now: SystemTime) -> Finding {
    const NAME: &str = "control plane";
    match control_plane::connect(membership, address, None, now, NETWORK_TIMEOUT).await {
        Ok(connection) => Finding::ok(NAME, format!("{} answers and proves its name", connection.address)),
        Err(error) => Finding::failed(NAME, format!("{error:#}")),
    }
}

/// A CA of the mesh that is not istiod (`CA_ADDR`).
async fn authority(membership: &Membership, now: SystemTime) -> Option<Finding> {
    const NAME: &str = "CA";
    let address = &membership.ca_address;
    if *address == membership.discovery_address {
        return None;
    }
    Some(
        match control_plane::connect(membership, address, None, now, NETWORK_TIMEOUT).await {
            Ok(connection) => Finding::ok(NAME, format!("{} answers and proves its name", connection.address)),
            Err(error) => Finding::failed(NAME, format!("CA_ADDR of cluster.env: {error:#}")),
        },
    )
}

/// The unit that holds the mesh's ports.
const PORTS_UNIT: &str = "istio-vm-agent-ports.service";

/// Only asked when no agent runs: then nobody should have them.
fn free_ports(host: &Host) -> Finding {
    const WANTED: [u16; 6] = [
        ports::OUTBOUND,
        ports::INBOUND,
        ports::STATUS,
        ports::READINESS,
        ports::DNS,
        ports::ENVOY_METRICS,
    ];
    // Held for us, and so for nobody else.
    if host
        .unit_property(PORTS_UNIT, "ActiveState")
        .is_ok_and(|state| state == "active")
    {
        return Finding::ok("ports", "held for the agent and Envoy");
    }
    let taken: Vec<String> = WANTED
        .into_iter()
        .filter(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_err())
        .map(|port| port.to_string())
        .collect();
    if taken.is_empty() {
        return Finding::ok("ports", "free");
    }
    let detail = format!(
        "taken: {}; find by whom with `ss -ltnp` (an Envoy that an agent left behind is adopted)",
        taken.join(", ")
    );
    Finding::warning("ports", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures;

    #[tokio::test]
    async fn ca_that_is_not_istiod_is_asked_too() {
        let now = SystemTime::now();
        let mut membership = fixtures::membership();
        membership.ca_address = membership.discovery_address.clone();
        assert_eq!(authority(&membership, now).await, None);
        membership.ca_address = "127.0.0.1:1".to_owned();
        let found = authority(&membership, now).await.unwrap();
        assert_eq!((found.name, found.level), ("CA", Level::Failed));
        assert!(found.detail.contains("127.0.0.1:1"), "{found:?}");
    }
}
