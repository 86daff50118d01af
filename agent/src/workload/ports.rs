//! The ports of the application, which are named in several places that must agree: the container's, its image's EXPOSE, the
//! WorkloadGroup's and the probe's. That the rules capture what is published is the join's to see. Pure.

use std::collections::BTreeSet;

use crate::config::{Config, ContainerConfig, Network};
use crate::facts::{Membership, Probe, ProbeKind};

/// Two places that don't agree.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Disagreement {
    pub(super) text: String,
    /// The remedy.
    pub(super) fix: &'static str,
}

/// A container, and what its image and its own probe say.
#[derive(Debug)]
struct Subject<'a> {
    container: &'a ContainerConfig,
    /// The ports that its image says it listens on; empty where it says nothing.
    exposed: Vec<u16>,
    probe: Option<&'a Probe>,
}

/// The first disagreement, the one that most calls are lost by; `exposed` says for an application's name which ports the
/// image of its container has. The ports of an application that is no container on a bridge are not known: with one among
/// them no other's are missing.
pub(super) fn disagreement(
    config: &Config,
    exposed: impl Fn(&str) -> Vec<u16>,
    membership: &Membership,
) -> Option<Disagreement> {
    let of_the_vm = config.health.choose(membership.probe.as_ref());
    let of_the_vm = of_the_vm.as_ref().map(|(probe, _)| probe);
    let subjects: Vec<_> = config
        .workloads
        .iter()
        .filter_map(|workload| {
            let container = workload.container.as_ref().filter(|it| it.network == Network::Bridge)?;
            Some(Subject {
                container,
                exposed: exposed(&workload.name),
                probe: workload.probe.as_ref().map(|probe| &probe.0),
            })
        })
        .collect();
    let is_whole = subjects.len() == config.workloads.iter().count();
    let of_all: BTreeSet<u16> = config.workloads.published().map(|port| port.host).collect();
    let mut unpublished = subjects.iter().map(unpublished);
    let mut of_images = subjects.iter().map(of_image);
    unpublished
        .find_map(|found| found)
        .or_else(|| is_whole.then(|| missing(&of_all, membership))?)
        .or_else(|| of_probe(of_the_vm.filter(|_| is_whole), &of_all))
        .or_else(|| {
            subjects.iter().find_map(|it| {
                let own = it.container.ports.iter().map(|port| port.host).collect();
                of_probe(it.probe, &own)
            })
        })
        .or_else(|| of_images.find_map(|found| found))
}

fn unpublished(subject: &Subject<'_>) -> Option<Disagreement> {
    let Subject { container, .. } = subject;
    container.ports.is_empty().then(|| Disagreement {
        text: format!("the container {} publishes no port: nobody can call it", container.name),
        fix: "publish the application's in workload.container.ports, such as [\"3550:3550\"]",
    })
}

fn missing(published: &BTreeSet<u16>, membership: &Membership) -> Option<Disagreement> {
    let captured = membership.inbound_ports.iter().flatten().copied();
    let missing: Vec<u16> = captured.filter(|port| !published.contains(port)).collect();
    (!missing.is_empty() && !published.is_empty()).then(|| Disagreement {
        text: format!(
            "the mesh sends calls to port {}, which no container publishes",
            list(&missing)
        ),
        fix: "publish it in workload.container.ports, or take it out of the WorkloadGroup",
    })
}

fn of_probe(probe: Option<&Probe>, published: &BTreeSet<u16>) -> Option<Disagreement> {
    let port = port_of_the_vm(probe?).filter(|port| !published.contains(port) && !published.is_empty())?;
    Some(Disagreement {
        text: format!("the probe asks port {port}, which the container doesn't publish"),
        fix: "name a published port of the VM in the probe, or publish this one in workload.container.ports",
    })
}

fn of_image(subject: &Subject<'_>) -> Option<Disagreement> {
    let Subject { container, exposed, .. } = subject;
    let inside = container.ports.iter().map(|port| port.container);
    let unknown: Vec<u16> = inside.filter(|port| !exposed.contains(port)).collect();
    (!exposed.is_empty() && !unknown.is_empty()).then(|| Disagreement {
        text: format!(
            "port {} of the container {} is none that its image exposes: {}",
            list(&unknown),
            container.name,
            list(exposed)
        ),
        fix: "name the port that the application listens on after the colon in workload.container.ports",
    })
}

/// True for a probe that asks a port which the container has.
pub(super) fn is_of(probe: &Probe, container: &ContainerConfig) -> bool {
    let is_published = |port: u16| container.published().iter().any(|it| it.host == port);
    port_of_the_vm(probe).is_some_and(is_published)
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
    use std::path::Path;

    use super::*;
    use crate::control_plane::fixtures::membership;

    fn found(text: &str, exposed: &[u16]) -> Option<String> {
        let text = format!("[join]\ndirectory = {{ path = '/b' }}\n{text}");
        let config = Config::parse(Path::new("c.toml"), &text).unwrap();
        let mut member = membership();
        member.inbound_ports = Some(vec![3550, 8080]);
        disagreement(&config, |_| exposed.to_vec(), &member).map(|found| found.text)
    }

    #[test]
    fn ports_are_compared_wherever_they_are_named() {
        let web =
            |published: &str| format!("[workload.container]\nname = 'web'\nimage = 'web:1'\nports = [{published}]\n");
        let probed = |port: u16| format!("[health.probe]\ntcp = {{ port = {port} }}\n");
        let both = "'3550:80', '8080:81'";
        for (text, exposed, says) in [
            (web(""), &[][..], "publishes no port"),
            (
                web("'3550:80'"),
                &[],
                "calls to port 8080, which no container publishes",
            ),
            (
                web(both),
                &[80],
                "port 81 of the container web is none that its image exposes: 80",
            ),
            (
                web(both) + &probed(80),
                &[],
                "the probe asks port 80, which the container doesn't publish",
            ),
        ] {
            let found = found(&text, exposed).unwrap();
            assert!(found.contains(says), "{found}");
        }
        assert_eq!(found(&(web(both) + &probed(8080)), &[80, 81]), None);
        assert_eq!(found(&web(both), &[]), None);
    }

    #[test]
    fn ports_of_several_applications_are_compared_together() {
        let container = |name: &str, port: u16| {
            format!(
                "[[workload]]\nname = '{name}'\ncontainer = {{ name = '{name}', image = 'a:1', ports = ['{port}:80'] }}\n"
            )
        };
        let both = container("web", 3550) + &container("db", 8080);
        assert_eq!(found(&both, &[]), None);
        let missing = found(&(container("web", 3550) + &container("db", 81)), &[]).unwrap();
        assert!(missing.contains("calls to port 8080"), "{missing}");
        let service = container("web", 3550) + "[[workload]]\nname = 'db'\nservice = { unit = 'db.service' }\n";
        assert_eq!(found(&service, &[]), None);
        // The probe of one is not answered by another.
        let probed = both + "probe = { tcp = { port = 3550 } }\n";
        assert!(found(&probed, &[]).unwrap().contains("the probe asks port 3550"));
    }
}
