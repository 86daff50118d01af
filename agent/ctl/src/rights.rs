//! The rights of the operator in each cluster: printed as Roles, and asked for before anything is done.

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::migration::{Form, Migration, Name};
use crate::objects::{self, GRPC_ROUTES, HTTP_ROUTES, MANAGER, VIRTUAL_SERVICES};

const OWNED: &[&str] = &["create", "delete", "get", "list", "patch"];
const SEEN: &[&str] = &["get", "list"];

/// Verbs on a resource in a namespace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Right<'a> {
    namespace: &'a Name,
    group: &'static str,
    resource: &'static str,
    /// The one object; absent: all.
    name: Option<&'static str>,
    verbs: &'static [&'static str],
}

/// All rights that a migration takes in one cluster, and no other.
pub(crate) fn rights<'a>(migration: &'a Migration, cluster: &'a crate::migration::Entry) -> Vec<Right<'a>> {
    let mut rights = Vec::new();
    for namespace in migration.namespaces(cluster) {
        let is_own = *namespace == migration.namespace;
        let right = |group, resource, verbs| Right {
            namespace,
            group,
            resource,
            name: None,
            verbs,
        };
        let rules = if is_own && migration.form() == Form::Subsets {
            OWNED
        } else {
            SEEN
        };
        let of_routes = |kind, others| match is_own && kind == objects::route_kind(migration) {
            true => OWNED,
            false => others,
        };
        rights.push(right(
            "networking.istio.io",
            VIRTUAL_SERVICES.plural,
            of_routes(VIRTUAL_SERVICES, SEEN),
        ));
        rights.push(right("networking.istio.io", "destinationrules", rules));
        rights.push(right("", "pods", &["list"]));
        if is_own {
            rights.push(right("", "services", &["get", "list", "patch"]));
            rights.push(right("discovery.k8s.io", "endpointslices", &["list"]));
            for kind in [GRPC_ROUTES, HTTP_ROUTES] {
                rights.push(right(
                    "gateway.networking.k8s.io",
                    kind.plural,
                    of_routes(kind, &["list"]),
                ));
            }
            rights.push(right("networking.istio.io", "workloadentries", &["delete", "list"]));
            rights.push(right("networking.istio.io", "workloadgroups", &["delete", "get"]));
            rights.push(right("security.istio.io", "authorizationpolicies", &["list"]));
        }
        if is_own || cluster.istiod.is_some() {
            rights.push(Right {
                name: Some("istio-ca-root-cert"),
                ..right("", "configmaps", &["get"])
            });
        }
        if cluster.istiod.is_some() {
            rights.push(Right {
                name: Some("default"),
                ..right("", "serviceaccounts/token", &["create"])
            });
        }
    }
    rights
}

/// Roles and their bindings for `user` in one cluster.
pub(crate) fn roles(migration: &Migration, cluster: &crate::migration::Entry, user: &str) -> Vec<Value> {
    let mut rules: BTreeMap<&Name, Vec<Value>> = BTreeMap::new();
    for right in rights(migration, cluster) {
        let mut rule = json!({ "apiGroups": [right.group], "resources": [right.resource], "verbs": right.verbs });
        if let Some(name) = right.name {
            rule["resourceNames"] = json!([name]);
        }
        rules.entry(right.namespace).or_default().push(rule);
    }
    let name = format!("{MANAGER}:{}", migration.service);
    let object = |kind, namespace: &Name| {
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": { "name": name, "namespace": namespace.as_str() } })
    };
    let mut objects = Vec::new();
    for (namespace, rules) in rules {
        let mut role = object("Role", namespace);
        role["rules"] = rules.into();
        let mut binding = object("RoleBinding", namespace);
        binding["roleRef"] = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name });
        binding["subjects"] = json!([{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }]);
        objects.extend([role, binding]);
    }
    objects
}

/// The rights that whoever asks does not have, in words.
pub(crate) async fn missing(cluster: &Cluster, migration: &Migration) -> Result<Vec<String>> {
    let rights = rights(migration, &cluster.entry);
    let asked = rights
        .iter()
        .flat_map(|right| right.verbs.iter().map(move |verb| (right, verb)));
    let answers = asked.map(|(right, verb)| async move {
        let (resource, subresource) = right.resource.split_once('/').unwrap_or((right.resource, ""));
        let attributes = json!({ "namespace": right.namespace.as_str(), "verb": verb, "group": right.group,
            "resource": resource, "subresource": subresource, "name": right.name.unwrap_or_default() });
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": { "resourceAttributes": attributes } });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let answer = cluster.ask("ask which rights there are", path, &review).await?;
        let is_allowed = answer["status"]["allowed"] == true;
        let group = if right.group.is_empty() {
            String::new()
        } else {
            format!(".{}", right.group)
        };
        let missing = (!is_allowed).then(|| format!("{verb} {}{group} in {}", right.resource, right.namespace));
        Ok::<_, anyhow::Error>(missing)
    });
    Ok(try_join_all(answers).await?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    #[test]
    fn rights_to_write_are_for_the_objects_that_are_made() {
        let migration = migration(HOSTS);
        let all = rights(&migration, &migration.clusters[0]);
        let written = all.iter().filter(|right| right.verbs.contains(&"patch"));
        // Of the Service the selector, once the VM is retired.
        let expected = ["virtualservices", "services"];
        assert_eq!(written.map(|right| right.resource).collect::<Vec<_>>(), expected);
        assert!(!all.iter().any(|right| right.resource == "serviceaccounts/token"));
    }

    #[test]
    fn route_of_the_gateway_api_is_written_in_place_of_a_virtual_service() {
        let migration = migration(&format!(
            "gateway_route = {{ kind = 'GRPCRoute', port = 3550 }}\n{HOSTS}"
        ));
        let all = rights(&migration, &migration.clusters[0]);
        let written = all.iter().filter(|right| right.verbs.contains(&"patch"));
        assert_eq!(
            written.map(|right| right.resource).collect::<Vec<_>>(),
            ["services", "grpcroutes"]
        );
    }

    #[test]
    fn namespaces_of_callers_get_roles_of_their_own() {
        let text = HOSTS.replace(
            "{ name = 'one' }",
            "{ name = 'one', callers = ['shop'], istiod = '10.0.0.2:15012' }",
        );
        let migration = migration(&text);
        let objects = roles(&migration, &migration.clusters[0], "jane");
        let of = |at: usize| {
            (
                objects[at]["kind"].as_str(),
                objects[at]["metadata"]["namespace"].as_str(),
            )
        };
        assert_eq!(of(0), (Some("Role"), Some("boutique")));
        assert_eq!(of(3), (Some("RoleBinding"), Some("shop")));
        assert_eq!(objects[3]["subjects"][0]["name"], "jane");
        let rules = objects[2]["rules"].as_array().unwrap();
        assert!(
            rules
                .iter()
                .all(|rule| !rule["verbs"].as_array().unwrap().contains(&json!("patch")))
        );
    }
}
