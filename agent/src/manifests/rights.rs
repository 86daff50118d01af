//! Roles and their bindings: what `join.kubernetes` asks the API server for, object by object.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Name, Wanted};

/// istiod writes it into every namespace (istio/pkg/config/constants).
const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";

/// Reading one object and following its changes. A watch that asks for one name needs no `list`.
const FOLLOW: &[&str] = &["get", "watch"];

/// One Role and its RoleBinding for each namespace in which something is read.
pub(super) fn objects(wanted: &Wanted) -> Vec<Value> {
    if wanted.subjects.is_empty() {
        return Vec::new();
    }
    let mut rules: BTreeMap<&Name, Vec<Value>> = BTreeMap::new();
    for (namespace, rule) in rules_by_namespace(wanted) {
        rules.entry(namespace).or_default().push(rule);
    }
    let bound = |(namespace, rules)| [role(wanted, namespace, rules), binding(wanted, namespace)];
    rules.into_iter().flat_map(bound).collect()
}

fn rules_by_namespace(wanted: &Wanted) -> Vec<(&Name, Value)> {
    let (group, mesh) = (&wanted.group, &wanted.mesh);
    let map = match &mesh.revision {
        Some(revision) => format!("istio-{revision}"),
        None => "istio".to_owned(),
    };
    let mut rules = vec![
        (
            &group.namespace,
            rule("networking.istio.io", "workloadgroups", group.name.as_str(), FOLLOW),
        ),
        (&group.namespace, rule("", "configmaps", ROOT_CONFIG_MAP, FOLLOW)),
        (
            &group.namespace,
            rule("", "serviceaccounts/token", group.service_account.as_str(), &["create"]),
        ),
        (&mesh.namespace, rule("", "configmaps", &map, FOLLOW)),
    ];
    if let Some(ingress) = &mesh.ingress {
        let namespace = ingress.namespace.as_ref().unwrap_or(&mesh.namespace);
        rules.push((namespace, rule("", "services", ingress.name.as_str(), FOLLOW)));
    }
    rules
}

fn rule(api_group: &str, resource: &str, name: &str, verbs: &[&str]) -> Value {
    json!({ "apiGroups": [api_group], "resourceNames": [name], "resources": [resource], "verbs": verbs })
}

/// Name of the Role and its binding in each namespace. The colons, which no name of a namespace or a group has, keep
/// groups apart.
fn name(wanted: &Wanted) -> String {
    format!("istio-vm-agent:{}:{}", wanted.group.namespace, wanted.group.name)
}

fn role(wanted: &Wanted, namespace: &Name, rules: Vec<Value>) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": { "name": name(wanted), "namespace": namespace.as_str() },
        "rules": rules,
    })
}

fn binding(wanted: &Wanted, namespace: &Name) -> Value {
    let name = name(wanted);
    let subjects: Vec<Value> = wanted.subjects.iter().map(|subject| subject.object()).collect();
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": { "name": name, "namespace": namespace.as_str() },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": subjects,
    })
}
