//! The labels of a workload, and the service and revision that Istio reads from them.

use std::collections::BTreeMap;

use crate::kube::WorkloadGroup;

/// Labels that name the canonical service, the first that is there counts (istio/pkg/kube/labels/labels.go).
const NAME: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
/// Labels that name the canonical revision, the first that is there counts.
const REVISION: [&str; 3] = [
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
];

/// Labels with the canonical service and revision among them.
#[derive(Debug)]
pub(super) struct Labels {
    pub(super) all: BTreeMap<String, String>,
    pub(super) service: String,
    pub(super) revision: String,
}

impl Labels {
    /// The labels of the group's workloads, under those of its template.
    pub(super) fn of(group: &WorkloadGroup) -> Self {
        let mut all = group.spec.metadata.labels.clone();
        all.extend(group.spec.template.labels.clone());
        let first = |keys: &[&str]| keys.iter().find_map(|key| all.get(*key)).cloned();
        let service = first(&NAME).unwrap_or_else(|| group.metadata.name.clone());
        let revision = first(&REVISION).unwrap_or_else(|| "latest".to_owned());
        all.insert(NAME[0].to_owned(), service.clone());
        all.insert(REVISION[0].to_owned(), revision.clone());
        Self { all, service, revision }
    }
}
