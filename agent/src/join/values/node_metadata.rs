//! Metadata that istiod is told of the VM, as JSON: a value that is none would be left out, and the VM be another
//! workload.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::Values;
use crate::config::ConfigError;
use crate::facts::kubernetes_name::{is_dns_label, is_kubernetes_name, is_label_key, is_word_of_a_label};

const LABELS: &str = "ISTIO_METAJSON_LABELS";
const ANNOTATIONS: &str = "ISTIO_METAJSON_ANNOTATIONS";
/// Booleans, of which those of ISTIO_META are such to istiod too (StringBool), which takes no node with another word there.
const FLAGS: [&str; 3] = [
    "ISTIO_DUAL_STACK",
    "ISTIO_META_DNS_AUTO_ALLOCATE",
    "ISTIO_META_ENABLE_HBONE",
];
const POD_PORTS: &str = "ISTIO_META_POD_PORTS";
const NETWORK: &str = "ISTIO_META_NETWORK";
const GROUP: &str = "ISTIO_META_AUTO_REGISTER_GROUP";
/// Signs that a label's value, and a name without blanks, is made of.
const SIGNS: &str = "letters, digits, '-', '_' and '.', with a letter or digit at both ends";
const WORD: &str = "letters, digits and signs, without blanks and '~'";

/// A variable, what it may be, and that in words.
type Kind = (&'static str, fn(&str) -> bool, &'static str);

/// The members of a JSON object, each as often as it is there.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EachMember)
    }
}

struct EachMember;

impl<'de> Visitor<'de> for EachMember {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

impl Values<'_> {
    /// Checks the JSON among the variables; an empty one says nothing.
    pub(in crate::join) fn metadata_is_sound(&self) -> Result<(), ConfigError> {
        let objects = self
            .bundle
            .env
            .iter()
            .filter(|(key, text)| key.starts_with("ISTIO_METAJSON_") && !text.is_empty());
        for (key, text) in objects {
            let Members(object) = serde_json::from_str(text)
                .map_err(|_| self.wrong(key, "is no JSON object, such as '{\"app\":\"catalog\"}'"))?;
            let mut names = BTreeSet::new();
            if let Some((twice, _)) = object.iter().find(|(name, _)| !names.insert(name)) {
                return Err(self.wrong(key, format!("{twice:?} is there twice: remove one of them")));
            }
            // istiod takes no node with another type in them (istio/pkg/model, NodeMetadata).
            let mut texts = object.iter().filter(|_| key == ANNOTATIONS);
            if let Some((name, _)) = texts.find(|(_, value)| !value.is_string()) {
                return Err(self.wrong(
                    key,
                    format!("the annotation {name:?} must be a string, in double quotes"),
                ));
            }
            let labels = object.iter().filter(|_| key == LABELS);
            for (label, value) in labels {
                let Some(value) = value.as_str() else {
                    return Err(self.wrong(key, format!("the label {label:?} must be a string, in double quotes")));
                };
                if !is_label_key(label) || !is_word_of_a_label(value) {
                    return Err(self.wrong(key, format!("{label:?}: {value:?} is no label of Kubernetes: {SIGNS}")));
                }
            }
        }
        self.names_are_sound()?;
        for key in FLAGS {
            self.flag(key)?;
        }
        match self.metadata(POD_PORTS).filter(|text| !text.is_empty()) {
            Some(text) if !are_ports(text) => Err(self.wrong_metadata(
                POD_PORTS,
                "is no JSON list of ports from 1 to 65535 with names and protocols in double quotes, such as \
                 '[{\"name\":\"grpc\",\"containerPort\":3550,\"protocol\":\"\"}]'",
            )),
            _ => Ok(()),
        }
    }

    /// Names by which istiod, the mesh's policies and its metrics know this VM.
    fn names_are_sound(&self) -> Result<(), ConfigError> {
        let kinds: [Kind; 7] = [
            (NETWORK, is_word_of_a_label, SIGNS),
            (GROUP, is_kubernetes_name, "lower-case letters, digits, '-' and '.'"),
            ("ISTIO_META_WORKLOAD_NAME", is_word, WORD),
            ("ISTIO_META_CLUSTER_ID", is_word, WORD),
            ("ISTIO_META_MESH_ID", is_word, WORD),
            ("CANONICAL_SERVICE", is_word_of_a_label, SIGNS),
            ("CANONICAL_REVISION", is_word_of_a_label, SIGNS),
        ];
        let value = |key| self.metadata(key).filter(|value| !value.is_empty());
        for (key, is_sound, signs) in kinds {
            if let Some(wrong) = value(key).filter(|value| !is_sound(value)) {
                return Err(self.wrong_metadata(key, format!("{wrong:?} is not a name: {signs} only")));
            }
        }
        match value(NETWORK).filter(|network| value(GROUP).is_some() && !is_dns_label(network)) {
            Some(network) => Err(self.wrong_metadata(
                NETWORK,
                format!(
                    "{network:?} can't stand in the name of the WorkloadEntry that istiod makes for this VM: have the network \
                     called by lower-case letters, digits and '-'"
                ),
            )),
            None => Ok(()),
        }
    }
}

/// The node id's own separator is no part of a word.
fn is_word(value: &str) -> bool {
    value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'~')
}

/// PodPort's JSON (istio/pkg/model/proxy.go).
fn are_ports(text: &str) -> bool {
    let is_port = |port: &Value| {
        let number = port.get("containerPort").and_then(Value::as_u64);
        let is_text = |key: &str| port.get(key).is_none_or(Value::is_string);
        number.is_some_and(|number| (1..=u64::from(u16::MAX)).contains(&number))
            && is_text("name")
            && is_text("protocol")
    };
    serde_json::from_str::<Vec<Value>>(text).is_ok_and(|ports| ports.iter().all(is_port))
}
