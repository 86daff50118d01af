//! The objects of one cluster that a migration has to know.

use std::collections::BTreeSet;

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::migration::{Migration, Name};
use crate::objects::{DESTINATION_RULES, GRPC_ROUTES, HTTP_ROUTES, Kind, VIRTUAL_SERVICES};

pub(crate) const SERVICES: Kind = Kind {
    api: "v1",
    plural: "services",
};
pub(crate) const CONFIG_MAPS: Kind = Kind {
    api: "v1",
    plural: "configmaps",
};
pub(crate) const ENDPOINT_SLICES: Kind = Kind {
    api: "discovery.k8s.io/v1",
    plural: "endpointslices",
};
pub(crate) const WORKLOAD_ENTRIES: Kind = Kind {
    api: "networking.istio.io/v1",
    plural: "workloadentries",
};
pub(crate) const WORKLOAD_GROUPS: Kind = Kind {
    api: "networking.istio.io/v1",
    plural: "workloadgroups",
};
pub(crate) const PODS: Kind = Kind {
    api: "v1",
    plural: "pods",
};
const POLICIES: Kind = Kind {
    api: "security.istio.io/v1",
    plural: "authorizationpolicies",
};

/// One cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) cluster: String,
    /// The Service that callers name.
    pub(crate) service: Option<Value>,
    /// The pods' Service, where they have one of their own.
    pub(crate) pods_service: Option<Value>,
    /// Services of the namespace.
    pub(crate) services: Vec<Value>,
    /// Pods of the namespace.
    pub(crate) pods: Vec<Value>,
    /// EndpointSlices of the namespace.
    pub(crate) slices: Vec<Value>,
    /// WorkloadEntries of the namespace.
    pub(crate) entries: Vec<Value>,
    pub(crate) group: Option<Value>,
    /// VirtualServices of all namespaces with callers.
    pub(crate) virtual_services: Vec<Value>,
    /// DestinationRules of all namespaces with callers.
    pub(crate) rules: Vec<Value>,
    /// GRPCRoutes and HTTPRoutes of the namespace.
    pub(crate) gateway_routes: Vec<(Kind, Value)>,
    pub(crate) policies: Vec<Value>,
    /// The roots of trust, PEM.
    pub(crate) root: Option<String>,
}

impl World {
    pub(crate) async fn read(cluster: &Cluster, migration: &Migration) -> Result<Self> {
        let namespace = migration.namespace.as_str();
        let pods_service = async {
            match &migration.pods.service {
                Some(service) => cluster.get(SERVICES, namespace, service.as_str()).await,
                None => Ok(None),
            }
        };
        let namespaces: Vec<&str> = migration.namespaces(&cluster.entry).map(|name| name.as_str()).collect();
        let everywhere = |kind| try_join_all(namespaces.iter().map(move |namespace| cluster.list(kind, namespace)));
        let (service, pods_service, services, group, root, pods, slices, entries) = tokio::try_join!(
            cluster.get(SERVICES, namespace, migration.service.as_str()),
            pods_service,
            cluster.list(SERVICES, namespace),
            cluster.get(WORKLOAD_GROUPS, namespace, migration.vm.workload_group.as_str()),
            cluster.get(CONFIG_MAPS, namespace, "istio-ca-root-cert"),
            cluster.list(PODS, namespace),
            cluster.list(ENDPOINT_SLICES, namespace),
            cluster.list(WORKLOAD_ENTRIES, namespace),
        )?;
        let (virtual_services, rules, grpc, http, policies) = tokio::try_join!(
            everywhere(VIRTUAL_SERVICES),
            everywhere(DESTINATION_RULES),
            cluster.list(GRPC_ROUTES, namespace),
            cluster.list(HTTP_ROUTES, namespace),
            cluster.list(POLICIES, namespace),
        )?;
        let root = root.and_then(|map| map["data"]["root-cert.pem"].as_str().map(|pem| pem.trim().to_owned()));
        // An item of a list says no kind.
        let of = |kind, routes: Vec<Value>| routes.into_iter().map(move |route| (kind, route));
        Ok(Self {
            cluster: cluster.name().to_owned(),
            service,
            pods_service,
            services,
            pods,
            slices,
            entries,
            group,
            virtual_services: virtual_services.concat(),
            rules: rules.concat(),
            gateway_routes: of(GRPC_ROUTES, grpc).chain(of(HTTP_ROUTES, http)).collect(),
            policies,
            root,
        })
    }

    /// The registrations of the group's VMs.
    pub(crate) fn entries_of_group(&self, migration: &Migration) -> impl Iterator<Item = &Value> {
        let group = migration.vm.workload_group.as_str();
        self.entries.iter().filter(move |entry| {
            let metadata = &entry["metadata"];
            let mut owners = metadata["ownerReferences"].as_array().into_iter().flatten();
            metadata["annotations"]["istio.io/autoRegistrationGroup"] == group
                || owners.any(|owner| owner["kind"] == "WorkloadGroup" && owner["name"] == group)
        })
    }

    /// The program's own DestinationRule, where there is one.
    pub(crate) fn own_rules(&self, migration: &Migration) -> impl Iterator<Item = &Value> {
        let (name, namespace) = (migration.object_name(), migration.namespace.as_str());
        let is_own = move |rule: &&Value| {
            rule["metadata"]["name"] == name.as_str() && rule["metadata"]["namespace"] == namespace
        };
        self.rules.iter().filter(is_own)
    }

    /// Where the group's VM answers, `host:port`.
    pub(crate) fn vm_address(&self, migration: &Migration) -> Option<String> {
        let entry = self.entries_of_group(migration).next()?;
        let port = &self.service.as_ref()?["spec"]["ports"][0];
        let port = port["targetPort"].as_u64().or_else(|| port["port"].as_u64())?;
        Some(socket(entry["spec"]["address"].as_str()?, port))
    }

    /// Where a ready pod answers, `host:port`.
    pub(crate) fn pod_address(&self, migration: &Migration) -> Option<String> {
        let service = migration.pods.service.as_ref()?;
        let address = self.ready_addresses(service).into_iter().next()?;
        let mut slices = self.slices.iter().filter(|slice| is_of(slice, service));
        Some(socket(
            address,
            slices.find_map(|slice| slice["ports"][0]["port"].as_u64())?,
        ))
    }

    /// The addresses of the ready endpoints that Kubernetes has for a Service.
    pub(crate) fn ready_addresses(&self, service: &Name) -> BTreeSet<&str> {
        let slices = self.slices.iter().filter(|slice| is_of(slice, service));
        slices.flat_map(ready).collect()
    }

    /// The addresses and ports of the ready endpoints that Kubernetes has for a Service.
    pub(crate) fn ready_sockets(&self, service: &Name) -> BTreeSet<(&str, u64)> {
        let slices = self.slices.iter().filter(|slice| is_of(slice, service));
        let sockets = slices.flat_map(|slice| {
            let ports = slice["ports"].as_array().into_iter().flatten();
            let numbers = ports.filter_map(|port| port["port"].as_u64());
            numbers.flat_map(|number| ready(slice).map(move |address| (address, number)))
        });
        sockets.collect()
    }
}

/// The addresses of a slice's ready endpoints.
fn ready(slice: &Value) -> impl Iterator<Item = &str> {
    let endpoints = slice["endpoints"].as_array().into_iter().flatten();
    // Absent is ready, by the API's own words.
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let addresses = ready.flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten());
    addresses.filter_map(Value::as_str)
}

fn is_of(slice: &Value, service: &Name) -> bool {
    slice["metadata"]["labels"]["kubernetes.io/service-name"] == service.as_str()
}

fn socket(address: &str, port: u64) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}
