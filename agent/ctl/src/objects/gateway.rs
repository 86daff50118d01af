//! Routes of the Gateway API whose parent is the Service, and what istiod says of them. Pure.

use serde_json::{Value, json};

use super::{GRPC_ROUTES, HTTP_ROUTES, named};
use crate::migration::{GatewayRoute, GatewayRouteKind, Migration, Name, Share};

/// A field that the API server would fill in by itself is written out, so that what was applied is what is there.
pub(super) fn route(migration: &Migration, route: &GatewayRoute, share: Share) -> Value {
    let service = |name: &Name| json!({ "group": "", "kind": "Service", "name": name.as_str() });
    let backend = |name: &Name, weight: u8| {
        let mut backend = service(name);
        backend["port"] = route.port.get().into();
        backend["weight"] = weight.into();
        backend
    };
    let pods = migration.pods.service.as_ref().unwrap_or(&migration.service);
    let mut rule =
        json!({ "backendRefs": [backend(&migration.service, share.of_vm()), backend(pods, share.of_pods())] });
    let mut object = match route.kind {
        GatewayRouteKind::Grpc => named(migration, GRPC_ROUTES, "GRPCRoute"),
        GatewayRouteKind::Http => {
            rule["matches"] = json!([{ "path": { "type": "PathPrefix", "value": "/" } }]);
            named(migration, HTTP_ROUTES, "HTTPRoute")
        }
    };
    object["spec"] = json!({ "parentRefs": [service(&migration.service)], "rules": [rule] });
    object
}

/// Why the mesh's controller doesn't take the route as it is; absent: it does, or hasn't said yet, or its kind has no status.
pub(crate) fn refusal(route: &Value) -> Option<String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let parents = list(&route["status"], "parents").into_iter();
    let mut refusals = parents.flat_map(|parent| {
        let of_parent = list(&parent, "conditions").into_iter();
        let refused = of_parent.filter(|condition| {
            let decides = condition["type"] == "Accepted" || condition["type"] == "ResolvedRefs";
            let is_of_now = condition["observedGeneration"] == route["metadata"]["generation"];
            decides && condition["status"] == "False" && is_of_now
        });
        let told = refused.map(move |condition| {
            let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
            let [kind, reason, message] = ["type", "reason", "message"].map(|key| text(&condition[key]));
            let controller = text(&parent["controllerName"]);
            super::one_line(&format!(
                "{controller} refuses it: {kind} is false: {reason}: {message}"
            ))
        });
        told.collect::<Vec<_>>()
    });
    refusals.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(accepted: (&str, u8), resolved: (&str, u8)) -> Value {
        let condition = |kind, (status, generation): (&str, u8), reason| json!({ "type": kind, "status": status, "observedGeneration": generation, "reason": reason, "message": "no Service" });
        json!({ "metadata": { "generation": 2 }, "status": { "parents": [{ "controllerName": "istio.io/gateway-controller",
            "conditions": [condition("Accepted", accepted, "NoMatchingParent"), condition("ResolvedRefs", resolved, "BackendNotFound")] }] } })
    }

    #[test]
    fn route_is_refused_by_a_condition_of_its_present_generation() {
        let told = |accepted, resolved| refusal(&route(accepted, resolved));
        assert_eq!(told(("True", 2), ("True", 2)), None);
        assert_eq!(told(("False", 1), ("False", 1)), None);
        let backend = "istio.io/gateway-controller refuses it: ResolvedRefs is false: BackendNotFound: no Service";
        assert_eq!(told(("True", 2), ("False", 2)).as_deref(), Some(backend));
        assert!(told(("False", 2), ("True", 2)).unwrap().contains("NoMatchingParent"));
        assert_eq!(refusal(&json!({ "metadata": { "generation": 1 } })), None);
    }
}
