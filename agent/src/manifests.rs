//! The cluster's side of a group of VMs, as Kubernetes objects for `kubectl apply`.
//!
//! Pure: from what is [`Wanted`] to objects. The rights are those that `join` uses, each for objects by name, and no
//! others; who gets to read more of the cluster is not for us to say.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod names;
mod probe;
mod rights;
mod workload;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::facts::{Probe, ProbeKind};

pub(crate) use names::{Name, Port, ServiceName, Subject};

/// All that the objects are made of.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) group: Group,
    pub(crate) mesh: Mesh,
    /// True when the namespace is to be made too.
    pub(crate) namespace: bool,
    pub(crate) endpoints: Endpoints,
    /// Subjects that may join; none: no rights are needed, because the VM joins by another way than the Kubernetes API.
    pub(crate) subjects: Vec<Subject>,
}

/// The VMs and what they serve.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) namespace: Name,
    /// Name of the WorkloadGroup.
    pub(crate) name: Name,
    pub(crate) service: Name,
    pub(crate) service_account: Name,
    /// Ports that the VMs serve, at least one.
    pub(crate) ports: Vec<Port>,
    /// More than `app`, which the Service selects by.
    pub(crate) labels: BTreeMap<String, String>,
    /// Istio's name of the network that the VMs are in, where the mesh has several.
    pub(crate) network: Option<String>,
    pub(crate) probe: Probe,
}

/// Istio, as it is installed.
#[derive(Clone, Debug)]
pub(crate) struct Mesh {
    pub(crate) namespace: Name,
    /// Absent: the one without a suffix.
    pub(crate) revision: Option<Name>,
    /// The Service by which VMs reach istiod; absent: they are told its address.
    pub(crate) ingress: Option<ServiceName>,
}

/// The way in which the mesh learns the VMs' addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Endpoints {
    /// istiod registers each VM that joins.
    Registered,
    /// Addresses are listed: istiod registers none.
    Listed(Vec<IpAddr>),
    /// Addresses are listed, because the VMs join another cluster, and only calls to them are made from this one.
    Elsewhere(Vec<IpAddr>),
}

/// All objects, in the order in which they can be applied.
pub(crate) fn objects(wanted: &Wanted) -> Vec<Value> {
    let Wanted { group, mesh, .. } = wanted;
    let mut objects = Vec::new();
    if wanted.namespace {
        objects.push(workload::namespace(group, mesh));
    }
    match &wanted.endpoints {
        Endpoints::Registered => objects.extend([
            workload::service_account(group),
            workload::workload_group(group),
            workload::service(group, true),
        ]),
        Endpoints::Listed(addresses) => objects.extend([
            workload::service_account(group),
            workload::workload_group(group),
            workload::service(group, false),
            workload::service_entry(group, addresses),
        ]),
        Endpoints::Elsewhere(addresses) => {
            objects.extend([
                workload::service(group, false),
                workload::service_entry(group, addresses),
            ]);
            return objects;
        }
    }
    objects.extend(rights::objects(wanted));
    objects
}

/// Advice that the objects can't express, for people.
pub(crate) fn notes(wanted: &Wanted) -> Vec<String> {
    let mut notes = Vec::new();
    if matches!(wanted.endpoints, Endpoints::Elsewhere(_)) {
        return notes;
    }
    if let ProbeKind::Grpc { port, .. } = wanted.group.probe.kind {
        notes.push(format!(
            "the WorkloadGroup has a TCP probe, because Istio refuses gRPC ones there: for gRPC, put \
             `grpc = {{ port = {port} }}` below [health.probe] in the VMs' configuration"
        ));
    }
    if wanted.subjects.is_empty() {
        notes.push(
            "nobody gets the right to join through the Kubernetes API: name who shall with --google-service-account, \
             --user, --group or --joining-service-account"
                .to_owned(),
        );
    }
    notes
}
