//! Names of keys as the operator wrote them, for messages that come long after the configuration was read.

use super::attribute;

/// The place of the keys that say which workload group of which cluster the VM is of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyOrigin {
    /// `[join.kubernetes]`.
    Kubernetes,
    /// `[join.gke]`.
    #[default]
    Gke,
    /// Attributes of the instance's metadata, each in place of a key of `[join.gke]`.
    Attributes,
}

impl KeyOrigin {
    /// `key`, as it is to be corrected; or to be added, for some keys have no attribute of their own.
    pub(crate) fn name(self, key: &str) -> String {
        match self {
            Self::Kubernetes => format!("join.kubernetes.{key}"),
            Self::Gke => format!("join.gke.{key}"),
            Self::Attributes => match attribute::attribute_of(key) {
                Some(attribute) => format!("the attribute {attribute}"),
                None => format!(
                    "join.gke.{key} in the attribute {}, in place of the others,",
                    attribute::WHOLE
                ),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_called_what_the_operator_called_it() {
        for (keys, key, name) in [
            (KeyOrigin::Kubernetes, "namespace", "join.kubernetes.namespace"),
            (KeyOrigin::Gke, "namespace", "join.gke.namespace"),
            (
                KeyOrigin::Attributes,
                "workload_group",
                "the attribute istio-vm-agent-workload-group",
            ),
            (
                KeyOrigin::Attributes,
                "revision",
                "join.gke.revision in the attribute istio-vm-agent-config, in place of the others,",
            ),
        ] {
            assert_eq!(keys.name(key), name);
        }
    }
}
