//! The file that says what migrates: a service, the VM that serves it, the pods that will, and the clusters whose
//! callers move together.

mod file;
mod gate;
mod names;
mod verify;

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

#[cfg(test)]
pub(crate) use file::tests;
pub(crate) use file::{parse, read};
pub(crate) use gate::{Gate, Metrics, OnFailure, Run};
pub(crate) use names::{Name, Share, Text};
pub(crate) use verify::{Call, Verify};

/// One migration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Migration {
    /// The namespace of the service, in each cluster.
    pub(crate) namespace: Name,
    /// The Service that callers name, and that the VM serves.
    pub(crate) service: Name,
    #[serde(default)]
    pub(crate) protocol: Protocol,
    /// The route of the Gateway API that splits the calls; absent: a VirtualService does.
    pub(crate) gateway_route: Option<GatewayRoute>,
    #[serde(default = "cluster_domain")]
    pub(crate) cluster_domain: Text,
    /// Time that a change is given where nobody can be asked whether it has arrived. Of endpoints nobody can: half a
    /// second was measured between their removal and the last proxy without them.
    #[serde(default = "settle", deserialize_with = "names::duration")]
    pub(crate) settle: Duration,
    /// Time after which proxies that have not got a change are named.
    #[serde(default = "patience", deserialize_with = "names::duration")]
    pub(crate) patience: Duration,
    pub(crate) vm: Vm,
    pub(crate) pods: Pods,
    pub(crate) clusters: Vec<Entry>,
    #[serde(default)]
    pub(crate) run: Run,
    #[serde(default)]
    pub(crate) gate: Gate,
    pub(crate) verify: Option<Verify>,
}

/// The side that serves today.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vm {
    /// The WorkloadGroup that the VM joins by.
    pub(crate) workload_group: Name,
    /// Labels that only the VM's endpoints have; empty where the pods have a Service of their own.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, Text>,
}

/// The side that will serve.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pods {
    /// The pods' own Service.
    pub(crate) service: Option<Name>,
    /// Labels that only the pods' endpoints have, where VM and pods share one Service.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, Text>,
}

/// A cluster with callers of the service.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// The cluster's id in the mesh, as istiod has it.
    pub(crate) name: Text,
    /// The context of the kubeconfig; absent: the current one.
    pub(crate) context: Option<Text>,
    /// The kubeconfig; absent: kubectl's.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The address of istiod's port 15012, `host:port`: where proxies are asked after.
    pub(crate) istiod: Option<Text>,
    /// Further namespaces whose pods call the service.
    #[serde(default)]
    pub(crate) callers: Vec<Name>,
    /// The URL of the cluster's Prometheus.
    pub(crate) prometheus: Option<Text>,
}

/// Protocol of the service: the things that are split between VM and pods.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// Calls of HTTP and gRPC, each for itself.
    #[default]
    Http,
    /// Connections. Those that are there stay where they are until Envoy ends them (`drainDuration`).
    Tcp,
}

/// A route of the Gateway API whose parent is the Service ("GAMMA").
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GatewayRoute {
    pub(crate) kind: GatewayRouteKind,
    /// The port of both Services, which the route's destinations have to name.
    pub(crate) port: NonZeroU16,
}

/// The kinds of the Gateway API's standard channel that split calls, as Kubernetes spells them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
pub(crate) enum GatewayRouteKind {
    #[serde(rename = "GRPCRoute")]
    Grpc,
    #[serde(rename = "HTTPRoute")]
    Http,
}

/// The way in which a call's destination is named.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    /// VM and pods are hosts of their own. Pods get no call that no route sends them.
    Hosts,
    /// VM and pods are subsets of one host, told apart by labels.
    Subsets,
}

impl Migration {
    /// The host that callers name.
    pub(crate) fn host(&self) -> String {
        self.host_of(&self.service)
    }

    /// The host that has the pods.
    pub(crate) fn pods_host(&self) -> String {
        self.host_of(self.pods.service.as_ref().unwrap_or(&self.service))
    }

    /// The name of each object that this program makes.
    pub(crate) fn object_name(&self) -> String {
        format!("{}-migration", self.service)
    }

    pub(crate) fn form(&self) -> Form {
        match self.pods.service {
            Some(_) => Form::Hosts,
            None => Form::Subsets,
        }
    }

    /// The namespaces of a cluster with callers, the service's own first.
    pub(crate) fn namespaces<'a>(&'a self, entry: &'a Entry) -> impl Iterator<Item = &'a Name> {
        let further = entry.callers.iter().filter(|name| **name != self.namespace);
        std::iter::once(&self.namespace).chain(further)
    }

    fn host_of(&self, service: &Name) -> String {
        format!("{service}.{}.svc.{}", self.namespace, self.cluster_domain)
    }

    /// The faults that no single value shows.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        match (
            &self.pods.service,
            self.pods.labels.is_empty(),
            self.vm.labels.is_empty(),
        ) {
            (Some(own), true, true) if *own == self.service => problems.push(
                "pods.service: is the service that the VM serves: give the pods a Service of their own, or tell both \
                 apart by labels"
                    .to_owned(),
            ),
            (Some(_), true, true) | (None, false, false) => {}
            (Some(_), ..) => problems.push(
                "pods.service: leave out pods.labels and vm.labels, which are for pods behind the VM's own Service"
                    .to_owned(),
            ),
            (None, ..) => problems.push(
                "pods: name the pods' Service in pods.service, or give both pods.labels and vm.labels".to_owned(),
            ),
        }
        if self.gateway_route.is_some() && self.form() == Form::Subsets {
            problems
                .push("gateway_route: the Gateway API has no subsets: give the pods a Service of their own".to_owned());
        }
        if self.gateway_route.is_some() && self.protocol == Protocol::Tcp {
            problems.push(
                "gateway_route: its kinds split calls, not connections: leave it out where protocol is \"tcp\""
                    .to_owned(),
            );
        }
        if self.clusters.is_empty() {
            problems.push("clusters: name at least one".to_owned());
        }
        for (at, entry) in self.clusters.iter().enumerate() {
            if self.clusters[..at].iter().any(|other| other.name == entry.name) {
                problems.push(format!("clusters: {} is there twice", entry.name));
            }
        }
        problems.extend(self.run.problem());
        problems.extend(self.gate.problems());
        problems.extend(self.verify.iter().flat_map(Verify::problems));
        let has_prometheus = self.clusters.iter().any(|entry| entry.prometheus.is_some());
        if self.form() == Form::Subsets && has_prometheus && self.gate.metrics == Metrics::Istio {
            problems.push("gate.metrics: Istio's metrics can't tell subsets apart: set \"envoy\"".to_owned());
        }
        problems
    }
}

fn cluster_domain() -> Text {
    Text::known("cluster.local")
}

fn settle() -> Duration {
    Duration::from_secs(2)
}

fn patience() -> Duration {
    Duration::from_secs(60)
}
