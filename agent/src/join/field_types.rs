//! Types of the fields of ProxyConfig that pass this agent by on their way to istiod, which takes no node with a value of
//! another type in them (istio/pkg/model, NodeMetaProxyConfig).

use serde_json::Value;

use super::camel_case::camel_case;
use crate::facts::number;

/// The type of a value in protobuf's JSON.
enum Type {
    Flag,
    Text,
    /// A map of strings.
    Texts,
    /// A number or a string of digits.
    Count,
    /// A number or a string of one.
    Percentage,
    /// A map in which these members have a type.
    Message(&'static [(&'static str, Self)]),
}

/// The fields that have one (istio.io/api, mesh/v1alpha1/proxy.proto).
const TYPES: [(&str, Type); 9] = [
    ("availabilityZone", Type::Text),
    ("connectionSettings", Type::Message(&[])),
    ("gatewayTopology", Type::Message(&[("numTrustedProxies", Type::Count)])),
    ("holdApplicationUntilProxyStarts", Type::Flag),
    ("image", Type::Message(&[("imageType", Type::Text)])),
    ("proxyHeaders", Type::Message(&[])),
    ("runtimeValues", Type::Texts),
    ("statsCompression", Type::Flag),
    (
        "tracing",
        Type::Message(&[
            ("customTags", Type::Message(&[])),
            ("enableIstioTags", Type::Flag),
            ("maxPathTagLength", Type::Count),
            ("sampling", Type::Percentage),
        ]),
    ),
];

/// The problem of a value of another type than its field's; nothing where it has none.
pub(super) fn problem(field: &str, value: &Value) -> Option<String> {
    find(&TYPES, field)?.problem(value)
}

fn find<'a>(types: &'a [(&str, Type)], name: &str) -> Option<&'a Type> {
    types.iter().find(|(known, _)| *known == name).map(|(_, kind)| kind)
}

impl Type {
    fn problem(&self, value: &Value) -> Option<String> {
        let (is_one, wanted) = match self {
            Self::Flag => (value.is_boolean(), "true or false, without quotes"),
            Self::Text => (value.is_string(), "text, in quotes"),
            Self::Texts => (is_texts(value), "a map of texts, each in quotes"),
            Self::Count => (is_count(value), "a whole number from 0, such as 1"),
            Self::Percentage => (is_percentage(value), "a number from 0 to 100, such as 1.5"),
            Self::Message(members) => match value.as_object() {
                Some(written) => {
                    let problem = |(name, value): (&String, &Value)| {
                        let problem = find(members, &camel_case(name))?.problem(value)?;
                        Some(format!("{name}: {problem}"))
                    };
                    return written.iter().filter(|(_, value)| !value.is_null()).find_map(problem);
                }
                None => (false, "a map"),
            },
        };
        (!is_one).then(|| format!("{value} must be {wanted}"))
    }
}

fn is_texts(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.values().all(Value::is_string))
}

fn is_count(value: &Value) -> bool {
    let number = value.as_u64().or_else(|| number::whole(value.as_str()?));
    number.is_some_and(|number| u32::try_from(number).is_ok())
}

fn is_percentage(value: &Value) -> bool {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    number.is_some_and(|number| (0.0..=100.0).contains(&number))
}
