//! The workload group that is asked for, of which mesh, and how its parts are called in the cluster.

use crate::config::{Config, KeyOrigin, KubernetesConfig};

/// The revision that Istio's charts give the name `default`: its objects carry no suffix.
const DEFAULT_REVISION: &str = "default";
/// Istiod's port with TLS (istio.io "Ports used by Istio").
const XDS_PORT: u16 = 15012;

/// A workload group of a mesh.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::join) struct GroupRef {
    /// Namespace of the WorkloadGroup.
    pub(in crate::join) namespace: String,
    /// Name of the WorkloadGroup.
    pub(in crate::join) workload_group: String,
    /// Istio's name of the cluster.
    pub(in crate::join) cluster_id: String,
    /// Revision of the control plane; empty or `default`: the one without a suffix.
    pub(in crate::join) revision: String,
    /// Namespace of the control plane.
    pub(in crate::join) istio_namespace: String,
    /// The domain of the cluster's services.
    pub(in crate::join) cluster_domain: String,
    /// The way to istiod from outside the cluster.
    pub(in crate::join) ingress: Ingress,
    /// True when istiod is to make the WorkloadEntry.
    pub(in crate::join) auto_register: bool,
    /// True when the agent answers the VM's DNS questions.
    pub(in crate::join) dns_capture: bool,
    /// The place where all this was written, for messages.
    pub(in crate::join) keys: KeyOrigin,
}

/// The way to istiod from outside the cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::join) enum Ingress {
    /// An address or a host name.
    Given(String),
    /// The address of a Service, from its load balancer or its external addresses.
    Service {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        name: String,
    },
    /// The address of a Service that may be missing: the configuration says where istiod is.
    Optional {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        name: String,
    },
}

impl Ingress {
    /// `service` is `name` or `name.namespace`.
    pub(in crate::join) fn of_service(service: &str, istio_namespace: &str, optional: bool) -> Self {
        let (name, namespace) = service.split_once('.').unwrap_or((service, istio_namespace));
        let (name, namespace) = (name.to_owned(), namespace.to_owned());
        match optional {
            true => Self::Optional { namespace, name },
            false => Self::Service { namespace, name },
        }
    }
}

impl GroupRef {
    /// The group that is configured in `keys`, for the VM that `whole` configures.
    pub(in crate::join) fn of(config: &KubernetesConfig, keys: KeyOrigin, whole: &Config) -> Self {
        let has_addresses = !whole.control_plane.addresses.is_empty();
        Self {
            namespace: config.namespace.clone(),
            workload_group: config.workload_group.clone(),
            cluster_id: config.cluster_id.clone(),
            revision: config.revision.clone(),
            istio_namespace: config.istio_namespace.clone(),
            cluster_domain: whole.network.cluster_domain().to_owned(),
            ingress: match &config.ingress {
                Some(ingress) => Ingress::Given(ingress.clone()),
                None => Ingress::of_service(&config.ingress_service, &config.istio_namespace, has_addresses),
            },
            auto_register: config.auto_register,
            dns_capture: config.dns_capture,
            keys,
        }
    }

    /// Name of the ConfigMap with the mesh's configuration.
    pub(super) fn mesh_config_map(&self) -> String {
        self.with_revision("istio")
    }

    /// Istiod's host name, for which its certificate is.
    pub(super) fn istiod_host(&self) -> String {
        format!("{}.{}.svc", self.with_revision("istiod"), self.istio_namespace)
    }

    /// Istiod's address, where the mesh's configuration can't have one of its own: absent for the default revision.
    pub(super) fn revision_address(&self) -> Option<String> {
        self.is_revisioned()
            .then(|| format!("{}:{XDS_PORT}", self.istiod_host()))
    }

    pub(super) fn with_revision(&self, name: &str) -> String {
        match self.is_revisioned() {
            true => format!("{name}-{}", self.revision),
            false => name.to_owned(),
        }
    }

    fn is_revisioned(&self) -> bool {
        !self.revision.is_empty() && self.revision != DEFAULT_REVISION
    }
}
