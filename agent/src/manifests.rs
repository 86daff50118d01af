//! The cluster's side of a group of VMs, as Kubernetes objects for `kubectl apply`.
//!
//! Pure: from what is [`Wanted`] to objects. The rights are those that `join` uses, each for objects by name, and no
//! others; who gets to read more of the cluster is not for us to say.

mod elsewhere;
mod exposed;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod monitoring;
mod names;
mod policy;
mod probe;
mod problems;
mod rights;
mod workload;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::facts::{Probe, ProbeKind};

pub(crate) use elsewhere::{Gateway, Way};
pub(crate) use exposed::{Exposed, LOAD_BALANCER};
pub(crate) use names::{Name, Port, ServiceName, Subject};
pub(crate) use policy::{Caller, EgressHost, Policies};
pub(crate) use problems::problems;

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
    pub(crate) exposed: Vec<Exposed>,
    pub(crate) policies: Policies,
    /// Addresses of VMs that Prometheus' operator is to scrape.
    pub(crate) scraped: Vec<IpAddr>,
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
    /// The VMs join another cluster, and only calls to them are made from this one.
    Elsewhere(Way),
}

/// All objects, in the order in which they can be applied.
pub(crate) fn objects(wanted: &Wanted) -> Vec<Value> {
    let Wanted { group, mesh, .. } = wanted;
    let mut objects = Vec::new();
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
        Endpoints::Elsewhere(way) => objects.extend(elsewhere::objects(group, way)),
    }
    if !matches!(wanted.endpoints, Endpoints::Elsewhere(_)) {
        objects.extend(rights::objects(wanted));
    }
    objects.extend(policy::objects(group, &wanted.policies, &mesh.namespace));
    if !wanted.scraped.is_empty() {
        objects.push(monitoring::scrape_config(group, &wanted.scraped));
    }
    for object in &mut objects {
        recommended(object, group);
    }
    objects.extend(
        wanted
            .exposed
            .iter()
            .flat_map(|exposed| exposed::objects(mesh, *exposed)),
    );
    if wanted.namespace {
        objects.insert(0, workload::namespace(group, mesh));
    }
    objects
}

/// Labels by which tools find what belongs together (kubernetes.io "Recommended Labels").
fn recommended(object: &mut Value, group: &Group) {
    let labels = &mut object["metadata"]["labels"];
    labels["app.kubernetes.io/name"] = group.service.as_str().into();
    labels["app.kubernetes.io/instance"] = group.name.as_str().into();
}

/// Advice that the objects can't express, for people.
pub(crate) fn notes(wanted: &Wanted) -> Vec<String> {
    let mut notes: Vec<String> = wanted
        .exposed
        .iter()
        .map(|it| exposed::note(&wanted.mesh, *it))
        .collect();
    if matches!(wanted.endpoints, Endpoints::Elsewhere(_)) {
        return notes;
    }
    if let ProbeKind::Grpc { port, .. } = wanted.group.probe.kind {
        notes.push(format!(
            "the WorkloadGroup has a TCP probe, because Istio refuses gRPC ones there: for gRPC, put \
             `grpc = {{ port = {port} }}` below [health.probe] in the VMs' configuration"
        ));
    }
    notes.extend(wanted.group.ports.iter().filter(|port| !port.has_protocol()).map(|port| {
        format!(
            "Istio guesses the protocol of port {name}, call by call: begin its name with http, grpc, tcp or what else it \
             speaks, as in tcp-{name}",
            name = port.name
        )
    }));
    notes.extend(wanted.subjects.iter().filter_map(Subject::broad).map(|group| {
        format!(
            "--group {group}: all of them may then be a VM of this group, and have its identity: name a group that the VMs \
             alone are in"
        )
    }));
    if wanted.subjects.is_empty() {
        notes.push(
            "nobody gets the right to join through the Kubernetes API: name who shall with --google-service-account, \
             --user, --group or --joining-service-account"
                .to_owned(),
        );
    }
    notes
}
