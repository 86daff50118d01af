//! JSON to a type, with the field that is of another one: a parser's own words may quote the text.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads `document`; an error is the path of the innermost value without which it could be read, and what that is.
pub(super) fn typed<T: DeserializeOwned>(document: &Value) -> Result<T, String> {
    T::deserialize(document).map_err(|_| wrong::<T>(document))
}

fn wrong<T: DeserializeOwned>(document: &Value) -> String {
    let (mut path, mut pointer) = (Vec::new(), String::new());
    let at = |pointer: &str| document.pointer(pointer).unwrap_or(&Value::Null);
    while let Some(name) = names(at(&pointer))
        .into_iter()
        .find(|name| is_read_without::<T>(document, &pointer, name))
    {
        pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        path.push(name);
    }
    let kind = match at(&pointer) {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) if path.is_empty() => {
            return "several of its fields are missing or are of another type".to_owned();
        }
        Value::Object(_) => "a map",
    };
    format!("{}: {kind} is not what this field has", path.join("."))
}

fn names(value: &Value) -> Vec<String> {
    match value {
        Value::Object(members) => members.keys().cloned().collect(),
        Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect(),
        _ => Vec::new(),
    }
}

fn is_read_without<T: DeserializeOwned>(document: &Value, parent: &str, name: &str) -> bool {
    let mut rest = document.clone();
    match rest.pointer_mut(parent) {
        Some(Value::Object(members)) => drop(members.remove(name)),
        Some(Value::Array(items)) => {
            let index = name.parse().ok().filter(|index| *index < items.len());
            index.map(|index: usize| items.remove(index));
        }
        _ => return false,
    }
    T::deserialize(&rest).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::WorkloadGroup;

    #[test]
    fn value_of_another_type_is_named_by_its_path() {
        let cases = [
            (
                json!({"template": {"ports": {"grpc": "http"}}}),
                "spec.template.ports.grpc: text is not",
            ),
            (
                json!({"template": {"ports": [3550]}}),
                "spec.template.ports: a list is not",
            ),
            (
                json!({"template": {"serviceAccount": 7}}),
                "spec.template.serviceAccount: a number is not",
            ),
            (
                json!({"metadata": {"labels": {"a/b": true}}}),
                "spec.metadata.labels.a/b: true or false is not",
            ),
            (json!("shop"), "spec: text is not"),
            (
                json!({"template": {"network": {}}, "metadata": 1}),
                "spec: a map is not",
            ),
        ];
        for (spec, wanted) in cases {
            let error = typed::<WorkloadGroup>(&json!({"metadata": {"name": "a"}, "spec": spec})).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
        assert!(
            typed::<WorkloadGroup>(&json!({"spec": {}}))
                .unwrap_err()
                .starts_with("several")
        );
    }
}
