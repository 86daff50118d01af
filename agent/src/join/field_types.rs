//! Types of the fields of ProxyConfig that pass this agent by on their way to istiod, which takes no node with a value of
//! another type in them (istio/pkg/model, NodeMetaProxyConfig).

use serde_json::{Map, Value};

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
    /// One of these, or its number.
    Name(&'static [&'static str]),
    /// A map in which these members have a type.
    Message(&'static [(&'static str, Self)]),
    /// A map whose names are the operator's own.
    Map(&'static Self),
}

const FLAG: &[(&str, Type)] = &[("disabled", Type::Flag), ("enabled", Type::Flag)];
const NAME: &[(&str, Type)] = &[("name", Type::Text), ("defaultValue", Type::Text)];
const CLIENT_CERT: Type = Type::Name(&[
    "UNDEFINED",
    "SANITIZE",
    "FORWARD_ONLY",
    "APPEND_FORWARD",
    "SANITIZE_SET",
    "ALWAYS_FORWARD_ONLY",
]);
const CLIENT_CERT_DETAILS: &[(&str, Type)] = &[
    ("subject", Type::Flag),
    ("cert", Type::Flag),
    ("chain", Type::Flag),
    ("dns", Type::Flag),
    ("uri", Type::Flag),
];
const HEADERS: &[(&str, Type)] = &[
    ("forwardedClientCert", CLIENT_CERT),
    ("setCurrentClientCertDetails", Type::Message(CLIENT_CERT_DETAILS)),
    ("requestId", Type::Message(FLAG)),
    (
        "server",
        Type::Message(&[("disabled", Type::Flag), ("value", Type::Text)]),
    ),
    ("attemptCount", Type::Message(FLAG)),
    ("envoyDebugHeaders", Type::Message(FLAG)),
    (
        "metadataExchangeHeaders",
        Type::Message(&[("mode", Type::Name(&["UNDEFINED", "IN_MESH"]))]),
    ),
    ("preserveHttp1HeaderCase", Type::Flag),
    ("xForwardedHost", Type::Message(FLAG)),
    ("xForwardedPort", Type::Message(FLAG)),
];
const CUSTOM_TAG: Type = Type::Message(&[
    ("literal", Type::Message(&[("value", Type::Text)])),
    ("environment", Type::Message(NAME)),
    ("header", Type::Message(NAME)),
]);

/// The fields that have one (istio.io/api, mesh/v1alpha1/proxy.proto).
const TYPES: [(&str, Type); 9] = [
    ("availabilityZone", Type::Text),
    ("connectionSettings", Type::Message(&[])),
    (
        "gatewayTopology",
        Type::Message(&[
            ("numTrustedProxies", Type::Count),
            ("forwardClientCertDetails", CLIENT_CERT),
        ]),
    ),
    ("holdApplicationUntilProxyStarts", Type::Flag),
    ("image", Type::Message(&[("imageType", Type::Text)])),
    ("proxyHeaders", Type::Message(HEADERS)),
    ("runtimeValues", Type::Texts),
    ("statsCompression", Type::Flag),
    (
        "tracing",
        Type::Message(&[
            ("customTags", Type::Map(&CUSTOM_TAG)),
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
            Self::Name(names) if !is_name(value, names) => {
                return Some(format!("{value} must be one of {}", names.join(", ")));
            }
            Self::Name(_) => return None,
            Self::Message(_) | Self::Map(_) => match value.as_object() {
                Some(members) => return self.problem_of_member(members),
                None => (false, "a map"),
            },
        };
        (!is_one).then(|| format!("{value} must be {wanted}"))
    }

    fn problem_of_member(&self, members: &Map<String, Value>) -> Option<String> {
        let kind = |name: &str| match self {
            Self::Message(known) => find(known, &camel_case(name)),
            Self::Map(kind) => Some(*kind),
            _ => None,
        };
        let problem = |(name, value): (&String, &Value)| Some(format!("{name}: {}", kind(name)?.problem(value)?));
        members.iter().filter(|(_, value)| !value.is_null()).find_map(problem)
    }
}

fn is_name(value: &Value, names: &[&str]) -> bool {
    let of_number = |number: u64| usize::try_from(number).is_ok_and(|index| index < names.len());
    value.as_str().is_some_and(|name| names.contains(&name)) || value.as_u64().is_some_and(of_number)
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
