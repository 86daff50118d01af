//! One probe of an application, as Kubernetes has it: by HTTP, gRPC, TCP or a command.

mod exec;
mod network;

use std::net::IpAddr;

use crate::config::PortMapping;
use crate::facts::{Probe, ProbeKind};

/// The place where a probe that names no host finds the application.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// The VM, at its address in the mesh: the probe's packets look like Envoy's own to the application, so that the
    /// rules let them pass.
    Vm(Option<IpAddr>),
    /// A container on a bridge of this VM, at its own address, whatever host the probe names.
    Container(IpAddr),
}

/// The probe, which names a port of the VM, with that of the container.
pub(crate) fn of_container(probe: &Probe, ports: &[PortMapping]) -> Probe {
    let mut probe = probe.clone();
    if let ProbeKind::Grpc { port, .. } | ProbeKind::Http { port, .. } | ProbeKind::Tcp { port, .. } = &mut probe.kind
        && let Some(published) = ports.iter().find(|published| published.host == *port)
    {
        *port = published.container;
    }
    probe
}

/// Asks once; the error is the reason. A command ends with the systemd unit `unit`; absent: with the agent's process.
pub(crate) async fn ask(probe: &Probe, place: Place, unit: Option<&str>) -> Result<(), String> {
    let deadline = probe.timeout;
    let asked = async {
        match &probe.kind {
            ProbeKind::Exec { command } => exec::run(command, deadline, unit).await,
            ProbeKind::Grpc { port, service } => network::grpc(place, *port, service).await,
            ProbeKind::Http { .. } => network::http(place, &probe.kind).await,
            ProbeKind::Tcp { host, port } => network::tcp(place, host.as_deref(), *port).await,
        }
    };
    match tokio::time::timeout(deadline, asked).await {
        Ok(result) => result.map_err(|error| format!("{error:#}")),
        Err(_) => Err(format!("no answer within {deadline:?}")),
    }
}
