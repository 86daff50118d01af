//! The traffic that is captured: the annotations `traffic.sidecar.istio.io/…` that a group has, as the variables of
//! Istio's VM agent (istio.io/api, annotation/annotations.yaml).

use std::collections::BTreeMap;

use crate::config::nearest_slip;
use crate::kube::WorkloadGroup;

const PREFIX: &str = "traffic.sidecar.istio.io/";
const EXCLUDE_INBOUND: &str = "excludeInboundPorts";
/// Annotations, and the variable that says the same.
const VARIABLES: [(&str, &str); 8] = [
    ("includeInboundPorts", "ISTIO_INBOUND_PORTS"),
    (EXCLUDE_INBOUND, "ISTIO_LOCAL_EXCLUDE_PORTS"),
    ("includeOutboundIPRanges", "ISTIO_SERVICE_CIDR"),
    ("excludeOutboundIPRanges", "ISTIO_SERVICE_EXCLUDE_CIDR"),
    ("includeOutboundPorts", "ISTIO_OUTBOUND_PORTS"),
    ("excludeOutboundPorts", "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE"),
    ("excludeInterfaces", "ISTIO_EXCLUDE_INTERFACES"),
    ("kubevirtInterfaces", "KUBE_VIRT_INTERFACES"),
];

/// Values of variables, each with the annotation that sets it.
#[derive(Debug, Default)]
pub(super) struct Traffic(pub(super) BTreeMap<&'static str, (String, String)>);

impl Traffic {
    /// The workloads' annotations count before the group's.
    ///
    /// # Errors
    /// Names the annotation that is none of Istio's.
    pub(super) fn of(group: &WorkloadGroup) -> Result<Self, String> {
        let parts = [
            ("metadata", &group.metadata.annotations),
            ("spec.metadata", &group.spec.metadata.annotations),
        ];
        let mut traffic = Self::default();
        for (part, annotations) in parts {
            for (annotation, value) in annotations {
                let Some(name) = annotation.strip_prefix(PREFIX) else {
                    continue;
                };
                let place = format!("{part}.annotations[{annotation}]");
                match VARIABLES.iter().find(|(known, _)| *known == name) {
                    Some((_, variable)) => drop(traffic.0.insert(variable, (value.clone(), place))),
                    None => {
                        let names = VARIABLES.map(|(name, _)| name);
                        let meant = nearest_slip(name, names).map(|known| format!(": did you mean {PREFIX}{known}?"));
                        return Err(format!(
                            "{place}: is unknown{}",
                            meant.unwrap_or_else(|| format!("; there are {PREFIX}{}", names.join(", ")))
                        ));
                    }
                }
            }
        }
        Ok(traffic)
    }
}
