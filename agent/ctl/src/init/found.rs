//! The service in one cluster: read by name where there is a name, and without rights beyond those.

use anyhow::{Result, bail};
use serde_json::Value;

use crate::cluster::{Cluster, Failure};
use crate::findings::{CONFIG_MAPS, SERVICES, WORKLOAD_ENTRIES, WORKLOAD_GROUPS, protocol_of, selects};
use crate::migration::{Entry, Name, Protocol};
use crate::objects::{GRPC_ROUTES, HTTP_ROUTES, Kind};

/// istiod's port for proxies, as Istio's own gateway for VMs has it.
const ISTIOD_PORT: u64 = 15012;
/// The Service of Istio's gateway between networks.
const GATEWAY: &str = "istio-eastwestgateway";

/// Where a cluster's istiod is.
pub(super) struct Istiod<'a> {
    /// Absent: istio-system.
    pub(super) namespace: Option<&'a Name>,
    pub(super) revision: Option<&'a str>,
}

/// One cluster.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) entry: Entry,
    /// The cluster's id in the mesh, by Istio's own configuration.
    pub(super) id: Option<String>,
    pub(super) network: Option<String>,
    /// The address of the gateway between networks, and whether istiod is reached by it.
    pub(super) gateway: Option<(String, bool)>,
    /// The VM's WorkloadGroup, where the VM joins this cluster.
    pub(super) group: Option<Value>,
    /// All Services of the namespace.
    pub(super) services: Vec<Value>,
    /// The kind of the namespace's routes of the Gateway API that have a Service for parent.
    pub(super) gateway_routes: Option<Kind>,
    /// Names of the VMs that have registered.
    pub(super) registered: Vec<String>,
    /// Objects that could not be read.
    pub(super) unread: Vec<String>,
}

impl Found {
    pub(super) async fn read(
        cluster: &Cluster,
        namespace: &Name,
        group: &Name,
        istiod: &Istiod<'_>,
    ) -> Result<Self, Failure> {
        let istio = istiod.namespace.map_or("istio-system", Name::as_str);
        let injector = match istiod.revision {
            Some(revision) => format!("istio-sidecar-injector-{revision}"),
            None => "istio-sidecar-injector".to_owned(),
        };
        let namespace = namespace.as_str();
        let (injector, gateway, found_group, services, entries, grpc, http) = tokio::join!(
            cluster.get(CONFIG_MAPS, istio, &injector),
            cluster.get(SERVICES, istio, GATEWAY),
            cluster.get(WORKLOAD_GROUPS, namespace, group.as_str()),
            cluster.list(SERVICES, namespace),
            cluster.list(WORKLOAD_ENTRIES, namespace),
            cluster.list(GRPC_ROUTES, namespace),
            cluster.list(HTTP_ROUTES, namespace),
        );
        let mut unread = Vec::new();
        let injector = permitted(injector, &mut unread)?.unwrap_or_default();
        let values = injector["data"]["values"].as_str().unwrap_or_default();
        let values: Value = serde_json::from_str(values).unwrap_or_default();
        let value = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Ok(Self {
            entry: cluster.entry.clone(),
            id: value(&values["global"]["multiCluster"]["clusterName"]),
            network: value(&values["global"]["network"]),
            gateway: permitted(gateway, &mut unread)?.as_ref().and_then(address),
            group: found_group?,
            services: services?,
            gateway_routes: of_services(&permitted(grpc, &mut unread)?, &permitted(http, &mut unread)?),
            registered: registered(&permitted(entries, &mut unread)?, group),
            unread,
        })
    }

    /// The Service that callers name: `wanted`, or the only one that selects what the group's VMs are labeled with.
    pub(super) fn service(&self, wanted: Option<&Name>) -> Result<Name> {
        let name = |service: &Value| service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let is_meant = |service: &&Value| match wanted {
            Some(wanted) => service["metadata"]["name"] == wanted.as_str(),
            None => selects(service, &self.labels()),
        };
        let meant: Vec<&Value> = self.services.iter().filter(is_meant).collect();
        let service = match (meant.as_slice(), wanted) {
            ([service], _) => *service,
            ([], Some(wanted)) => bail!("{}: there is no Service {wanted}", self.entry.name),
            ([], None) => bail!(
                "{}: no Service selects the labels of the WorkloadGroup: name it with --service",
                self.entry.name
            ),
            (several, _) => {
                let names: Vec<String> = several.iter().map(|service| name(service)).collect();
                bail!(
                    "{}: {} select the VM: name the one that callers use with --service",
                    self.entry.name,
                    names.join(" and ")
                );
            }
        };
        let name = name(service);
        if service["spec"]["clusterIP"] == "None" {
            bail!(
                "Service {name} is headless: callers pick an endpoint by themselves, and no route splits their calls; \
                 give it an address"
            );
        }
        Name::try_from(name).map_err(anyhow::Error::msg)
    }

    /// Protocol of a Service's calls, by which they are split.
    pub(super) fn protocol(&self, service: &Name) -> Protocol {
        self.named(service).map_or_else(Protocol::default, protocol_of)
    }

    /// The ports of a Service.
    pub(super) fn ports(&self, service: &Name) -> Vec<u64> {
        let ports = self
            .named(service)
            .and_then(|service| service["spec"]["ports"].as_array());
        let ports = ports.into_iter().flatten();
        ports.filter_map(|port| port["port"].as_u64()).collect()
    }

    fn named(&self, service: &Name) -> Option<&Value> {
        let mut services = self.services.iter();
        services.find(|it| it["metadata"]["name"] == service.as_str())
    }

    /// The labels of the group's VMs.
    pub(super) fn labels(&self) -> serde_json::Map<String, Value> {
        let group = self.group.as_ref();
        let labels = |at: &str| {
            group
                .and_then(|group| group.pointer(at)?.as_object().cloned())
                .unwrap_or_default()
        };
        let mut all = labels("/spec/metadata/labels");
        all.extend(labels("/spec/template/labels"));
        all
    }

    /// The address of istiod for a VM, where the gateway leads to it.
    pub(super) fn istiod(&self) -> Option<String> {
        let (address, is_istiods) = self.gateway.as_ref()?;
        is_istiods.then(|| match address.contains(':') {
            true => format!("[{address}]:{ISTIOD_PORT}"),
            false => format!("{address}:{ISTIOD_PORT}"),
        })
    }
}

/// An answer; one that may not be read is told, and counts as empty.
fn permitted<T: Default>(answer: Result<T, Failure>, unread: &mut Vec<String>) -> Result<T, Failure> {
    match answer {
        Err(failure) if failure.code == Some(403) => {
            unread.push(format!("{:#}", anyhow::Error::from(failure)));
            Ok(T::default())
        }
        answer => answer,
    }
}

pub(super) fn address(gateway: &Value) -> Option<(String, bool)> {
    let first = &gateway["status"]["loadBalancer"]["ingress"][0];
    let address = [&first["ip"], &first["hostname"], &gateway["spec"]["externalIPs"][0]];
    let address = address.into_iter().find_map(Value::as_str)?;
    let mut ports = gateway["spec"]["ports"].as_array().into_iter().flatten();
    Some((address.to_owned(), ports.any(|port| port["port"] == ISTIOD_PORT)))
}

fn of_services(grpc: &[Value], http: &[Value]) -> Option<Kind> {
    let is_of_service = |route: &Value| {
        let mut parents = route["spec"]["parentRefs"].as_array().into_iter().flatten();
        parents.any(|parent| parent["kind"] == "Service")
    };
    let mut kinds = [(GRPC_ROUTES, grpc), (HTTP_ROUTES, http)].into_iter();
    kinds.find_map(|(kind, routes)| routes.iter().any(is_of_service).then_some(kind))
}

pub(super) fn registered(entries: &[Value], group: &Name) -> Vec<String> {
    let of_group =
        |entry: &&Value| entry["metadata"]["annotations"]["istio.io/autoRegistrationGroup"] == group.as_str();
    let name = |entry: &Value| entry["metadata"]["name"].as_str().map(str::to_owned);
    entries.iter().filter(of_group).filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    fn found(services: Vec<Value>) -> Found {
        Found {
            entry: migration(HOSTS).clusters[0].clone(),
            id: None,
            network: None,
            gateway: None,
            group: Some(json!({ "spec": { "metadata": { "labels": { "app": "catalog", "version": "v1" } } } })),
            services,
            gateway_routes: None,
            registered: Vec::new(),
            unread: Vec::new(),
        }
    }

    fn service(name: &str, selector: &Value) -> Value {
        json!({ "metadata": { "name": name }, "spec": { "selector": selector } })
    }

    #[test]
    fn service_is_the_one_that_selects_the_vm() {
        let others = [
            service("cart", &json!({ "app": "cart" })),
            service("listed", &Value::Null),
        ];
        let catalog = service("catalog", &json!({ "app": "catalog" }));
        let all = found([&others[..], std::slice::from_ref(&catalog)].concat());
        assert_eq!(all.service(None).unwrap().as_str(), "catalog");
        let named = Name::try_from("listed".to_owned()).unwrap();
        assert_eq!(all.service(Some(&named)).unwrap().as_str(), "listed");
        for (services, words) in [
            (others.to_vec(), "no Service selects"),
            (
                vec![catalog.clone(), service("catalog-v1", &json!({ "version": "v1" }))],
                "catalog and catalog-v1 select the VM",
            ),
        ] {
            let refused = found(services).service(None).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        let mut headless = catalog;
        headless["spec"]["clusterIP"] = "None".into();
        let refused = found(vec![headless]).service(None).unwrap_err().to_string();
        assert!(refused.contains("catalog is headless"), "{refused}");
    }

    #[test]
    fn routes_of_the_gateway_api_count_where_a_service_is_their_parent() {
        let route = |kind: &str| vec![json!({ "spec": { "parentRefs": [{ "kind": kind, "name": "any" }] } })];
        assert_eq!(of_services(&route("Gateway"), &[]), None);
        assert_eq!(of_services(&route("Gateway"), &route("Service")), Some(HTTP_ROUTES));
        assert_eq!(of_services(&route("Service"), &route("Service")), Some(GRPC_ROUTES));
    }

    #[test]
    fn istiod_is_behind_a_gateway_that_has_its_port() {
        let gateway = |ip: &str, port: u64| {
            let service = json!({ "spec": { "ports": [{ "port": port }] },
                "status": { "loadBalancer": { "ingress": [{ "ip": ip }] } } });
            Found {
                gateway: address(&service),
                ..found(Vec::new())
            }
        };
        assert_eq!(gateway("10.0.0.1", 15012).istiod().as_deref(), Some("10.0.0.1:15012"));
        assert_eq!(gateway("fd00::1", 15012).istiod().as_deref(), Some("[fd00::1]:15012"));
        assert_eq!(gateway("10.0.0.1", 15443).istiod(), None);
    }
}
