//! Objects of the API server: in words, as a path, and as the rule of a Role that allows what is done with them.

use std::fmt;

/// One object, by name. The printed Role allows no more.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Resource {
    kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    WorkloadGroup,
    ConfigMap,
    Service,
    /// A token of a ServiceAccount of that name.
    Token,
}

/// The operation on an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verb {
    Get,
    Watch,
    Create,
}

impl Resource {
    pub(crate) fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Path below the server's URL.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}{}", self.collection(), self.name, self.kind.subresource())
    }

    /// Path and query of the stream of its changes after `version`. Kubernetes checks a Role's names against the
    /// field selector.
    pub(crate) fn watch_path(&self, version: &str, seconds: u64) -> String {
        format!(
            "{}?watch=1&fieldSelector=metadata.name%3D{}&resourceVersion={version}&timeoutSeconds={seconds}",
            self.collection(),
            self.name
        )
    }

    /// The rule that is missing when `verb` is forbidden.
    pub(crate) fn rule(&self, verb: Verb) -> String {
        format!(
            "{{apiGroups: [{:?}], resources: [{}{}], resourceNames: [{}], verbs: [{verb}]}}",
            self.kind.group(),
            self.kind.plural(),
            self.kind.subresource(),
            self.name
        )
    }

    fn collection(&self) -> String {
        let root = match self.kind.group() {
            "" => "/api/v1".to_owned(),
            group => format!("/apis/{group}/v1"),
        };
        format!("{root}/namespaces/{}/{}", self.namespace, self.kind.plural())
    }
}

impl Kind {
    fn group(self) -> &'static str {
        match self {
            // v1 since Istio 1.22.
            Self::WorkloadGroup => "networking.istio.io",
            Self::ConfigMap | Self::Service | Self::Token => "",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::WorkloadGroup => "workloadgroups",
            Self::ConfigMap => "configmaps",
            Self::Service => "services",
            Self::Token => "serviceaccounts",
        }
    }

    fn subresource(self) -> &'static str {
        match self {
            Self::Token => "/token",
            _ => "",
        }
    }
}

impl fmt::Display for Resource {
    /// Writes the object's name as kubectl does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::WorkloadGroup => "workloadgroup",
            Kind::ConfigMap => "configmap",
            Kind::Service => "service",
            Kind::Token => "token of serviceaccount",
        };
        write!(f, "{kind} {}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Watch => "watch",
            Self::Create => "create",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_has_a_path_and_a_rule() {
        let group = Resource::new(Kind::WorkloadGroup, "shop", "catalog");
        assert_eq!(
            group.path(),
            "/apis/networking.istio.io/v1/namespaces/shop/workloadgroups/catalog"
        );
        assert_eq!(
            group.watch_path("7", 300),
            "/apis/networking.istio.io/v1/namespaces/shop/workloadgroups?watch=1&fieldSelector=metadata.name%3Dcatalog&resourceVersion=7&timeoutSeconds=300"
        );
        let token = Resource::new(Kind::Token, "shop", "catalog");
        assert_eq!(token.path(), "/api/v1/namespaces/shop/serviceaccounts/catalog/token");
        assert_eq!(
            token.rule(Verb::Create),
            "{apiGroups: [\"\"], resources: [serviceaccounts/token], resourceNames: [catalog], verbs: [create]}"
        );
    }
}
