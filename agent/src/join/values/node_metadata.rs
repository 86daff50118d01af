//! What istiod is told of this VM as JSON: a value that is none would be left out, and the VM be another workload.

use serde_json::{Map, Value};

use super::Values;
use crate::config::ConfigError;

const LABELS: &str = "ISTIO_METAJSON_LABELS";
const POD_PORTS: &str = "ISTIO_META_POD_PORTS";

impl Values<'_> {
    /// Checks the JSON among the variables; an empty one says nothing.
    pub(in crate::join) fn metadata_is_sound(&self) -> Result<(), ConfigError> {
        let objects = self
            .bundle
            .env
            .iter()
            .filter(|(key, text)| key.starts_with("ISTIO_METAJSON_") && !text.is_empty());
        for (key, text) in objects {
            let object: Map<String, Value> = serde_json::from_str(text)
                .map_err(|_| self.wrong(key, "is no JSON object, such as '{\"app\":\"catalog\"}'"))?;
            if let Some((label, _)) = object.iter().find(|(_, value)| key == LABELS && !value.is_string()) {
                return Err(self.wrong(key, format!("the label {label:?} must be a string, in double quotes")));
            }
        }
        match self.metadata(POD_PORTS).filter(|text| !text.is_empty()) {
            Some(text) if !are_ports(text) => Err(self.wrong_metadata(
                POD_PORTS,
                "is no JSON list of ports from 1 to 65535, such as \
                 '[{\"name\":\"grpc\",\"containerPort\":3550,\"protocol\":\"\"}]'",
            )),
            _ => Ok(()),
        }
    }
}

/// PodPort's JSON (istio/pkg/model/proxy.go).
fn are_ports(text: &str) -> bool {
    let is_port = |port: &Value| {
        let number = port.get("containerPort").and_then(Value::as_u64);
        number.is_some_and(|number| (1..=u64::from(u16::MAX)).contains(&number))
    };
    serde_json::from_str::<Vec<Value>>(text).is_ok_and(|ports| ports.iter().all(is_port))
}
