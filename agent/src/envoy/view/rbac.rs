//! envoy.config.rbac.v3. A permission and a principal are conditions of one form here: what is not known is unknown, and
//! neither held for true nor for false.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The policies of one filter.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Rbac {
    /// `DENY`, `LOG`; absent: `ALLOW`.
    pub action: Option<String>,
    /// Policies by name.
    pub policies: BTreeMap<String, Policy>,
}

impl Rbac {
    /// True where a request that matches a policy is refused.
    pub fn denies(&self) -> bool {
        self.action.as_deref() == Some("DENY")
    }

    /// True where a request that matches no policy is refused.
    pub fn allows(&self) -> bool {
        self.action.as_deref().is_none_or(|action| action == "ALLOW")
    }
}

/// envoy.config.rbac.v3.Policy: it matches when one of its permissions and one of its principals do.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Policy {
    /// Conditions on the request.
    pub permissions: Vec<Condition>,
    /// Who asks.
    pub principals: Vec<Condition>,
}

/// envoy.config.rbac.v3.Permission or Principal: an object of one member, its kind.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Condition(pub Value);

impl Condition {
    /// The kind of the condition, and its value.
    pub fn parts(&self) -> Option<(&str, &Value)> {
        let (kind, value) = self.0.as_object()?.iter().next()?;
        Some((kind, value))
    }

    /// The conditions of a set (`rules` of permissions, `ids` of principals).
    pub fn members(set: &Value) -> Vec<Self> {
        let list = ["rules", "ids"].iter().find_map(|key| set[*key].as_array());
        list.into_iter().flatten().cloned().map(Self).collect()
    }
}
