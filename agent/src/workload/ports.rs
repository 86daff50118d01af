//! The ports of the application, which are named in several places that must agree: the container's, its image's EXPOSE, the
//! WorkloadGroup's and the probe's. That the rules capture what is published is the join's to see. Pure.

use std::collections::BTreeSet;

use crate::config::{ContainerConfig, Network};
use crate::facts::{Membership, Probe, ProbeKind};

/// Two places that don't agree.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Disagreement {
    pub(super) text: String,
    /// The remedy.
    pub(super) fix: &'static str,
}

/// The first disagreement, the one that most calls are lost by. `exposed` is empty where the image says nothing.
pub(super) fn disagreement(
    container: &ContainerConfig,
    exposed: &[u16],
    membership: &Membership,
    probe: Option<&Probe>,
) -> Option<Disagreement> {
    if container.network == Network::Host {
        return None;
    }
    let published: BTreeSet<u16> = container.ports.iter().map(|port| port.host).collect();
    let captured = membership.inbound_ports.iter().flatten().copied();
    let missing: Vec<u16> = captured.filter(|port| !published.contains(port)).collect();
    let inside = container.ports.iter().map(|port| port.container);
    let unknown: Vec<u16> = inside.filter(|port| !exposed.contains(port)).collect();
    let probed = probe.and_then(port_of_the_vm).filter(|port| !published.contains(port));
    let (text, fix) = match probed {
        _ if published.is_empty() => (
            "the container publishes no port: nobody can call it".to_owned(),
            "publish the application's in workload.container.ports, such as [\"3550:3550\"]",
        ),
        _ if !missing.is_empty() => (
            format!(
                "the mesh sends calls to port {}, which the container doesn't publish",
                list(&missing)
            ),
            "publish it in workload.container.ports, or take it out of the WorkloadGroup",
        ),
        Some(port) => (
            format!("the probe asks port {port}, which the container doesn't publish"),
            "name a published port of the VM in the probe, or publish this one in workload.container.ports",
        ),
        None if !exposed.is_empty() && !unknown.is_empty() => (
            format!(
                "port {} of the container is none that its image exposes: {}",
                list(&unknown),
                list(exposed)
            ),
            "name the port that the application listens on after the colon in workload.container.ports",
        ),
        None => return None,
    };
    Some(Disagreement { text, fix })
}

/// The port of this VM that a probe asks.
fn port_of_the_vm(probe: &Probe) -> Option<u16> {
    match &probe.kind {
        ProbeKind::Grpc { port, .. }
        | ProbeKind::Http { port, host: None, .. }
        | ProbeKind::Tcp { port, host: None } => Some(*port),
        ProbeKind::Http { .. } | ProbeKind::Tcp { .. } | ProbeKind::Exec { .. } => None,
    }
}

fn list(ports: &[u16]) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::membership;

    #[test]
    fn ports_are_compared_wherever_they_are_named() {
        let mut member = membership();
        member.inbound_ports = Some(vec![3550, 8080]);
        let found = |published: &str, exposed: &[u16], probe: Option<u16>| {
            let config = format!("name = 'web'\nimage = 'web:1'\nports = [{published}]\n");
            let probe = probe.map(|port| {
                let probe = toml::from_str::<crate::config::ProbeConfig>(&format!("tcp = {{ port = {port} }}"));
                probe.unwrap().0
            });
            let container = toml::from_str(&config).unwrap();
            disagreement(&container, exposed, &member, probe.as_ref()).map(|found| found.text)
        };
        for (published, exposed, probe, says) in [
            ("", &[][..], None, "publishes no port"),
            (
                "'3550:80'",
                &[],
                None,
                "calls to port 8080, which the container doesn't publish",
            ),
            (
                "'3550:80', '8080:81'",
                &[80],
                None,
                "port 81 of the container is none that its image exposes: 80",
            ),
            (
                "'3550:80', '8080:81'",
                &[],
                Some(80),
                "the probe asks port 80, which the container doesn't publish",
            ),
        ] {
            let found = found(published, exposed, probe).unwrap();
            assert!(found.contains(says), "{found}");
        }
        assert_eq!(found("'3550:80', '8080:81'", &[80, 81], Some(8080)), None);
        assert_eq!(found("'3550:80', '8080:81'", &[], None), None);
    }
}
