//! Names, ports and subjects as they are given on a command line.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use crate::facts::kubernetes_name::is_dns_label;
use crate::facts::number;

/// The protocols that a port's name may begin with (istio/pkg/config/protocol).
const PROTOCOLS: [&str; 11] = [
    "grpc", "http", "http2", "https", "mongo", "mysql", "redis", "tcp", "tls", "ws", "wss",
];
/// Groups that the API server itself puts users into (kubernetes.io "Authentication").
const BROAD: [&str; 3] = [
    "system:authenticated",
    "system:serviceaccounts",
    "system:unauthenticated",
];

/// A name that Kubernetes takes for any of our objects: a DNS label (RFC 1123), for a Service's name is one.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Name(String);

impl Name {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match is_dns_label(text) {
            true => Ok(Self(text.to_owned())),
            false => Err("a name has at most 63 characters of a-z, 0-9 and -, and no - at an end".to_owned()),
        }
    }
}

/// A Service, `NAME` or `NAME.NAMESPACE`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ServiceName {
    pub(crate) name: Name,
    /// Absent: Istio's own.
    pub(crate) namespace: Option<Name>,
}

impl FromStr for ServiceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, namespace) = match text.split_once('.') {
            Some((name, namespace)) => (name, Some(namespace.parse()?)),
            None => (text, None),
        };
        Ok(Self {
            name: name.parse()?,
            namespace,
        })
    }
}

/// `NAME:PORT` or `NAME:PORT:TARGET`: how the Service calls it, what callers call, where the VM listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Port {
    /// Istio takes the protocol from its first word.
    pub(crate) name: Name,
    pub(crate) port: u16,
    pub(crate) target: u16,
}

impl Port {
    /// True for a port whose name says its protocol; of another's calls Istio guesses it (istio.io "Protocol Selection").
    pub(crate) fn has_protocol(&self) -> bool {
        let first = self.name.as_str().split('-').next();
        first.is_some_and(|first| PROTOCOLS.contains(&first))
    }

    /// True for a port that Istio takes for gRPC (istio.io "Protocol Selection").
    pub(crate) fn is_grpc(&self) -> bool {
        self.name.as_str() == "grpc" || self.name.as_str().starts_with("grpc-")
    }
}

impl FromStr for Port {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not name:port or name:port:target, such as \"grpc:3550\"");
        let number = |part: &str| number::port(part).ok_or_else(wrong);
        let mut parts = text.split(':');
        let (Some(name), Some(port), target, None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(wrong());
        };
        // A port's name is shorter than others (IANA_SVC_NAME).
        if name.len() > 15 || !name.contains(|c: char| c.is_ascii_lowercase()) {
            return Err(format!(
                "{name:?}: a port's name has at most 15 characters and a letter"
            ));
        }
        let port = number(port)?;
        Ok(Self {
            name: name.parse()?,
            port,
            target: target.map_or(Ok(port), number)?,
        })
    }
}

/// A subject that gets rights.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    /// A user, as the API server's authentication names it; GKE names Google service accounts by their e-mail.
    User(String),
    /// A group.
    Group(String),
    /// A ServiceAccount of the cluster.
    ServiceAccount { namespace: Name, name: Name },
}

impl Subject {
    /// A Google service account's e-mail; its other names are no users of GKE.
    pub(crate) fn google(email: &str) -> Result<Self, String> {
        match email
            .strip_suffix(".gserviceaccount.com")
            .and_then(|name| name.split_once('@'))
        {
            Some((name, host)) if !name.is_empty() && !host.is_empty() => Ok(Self::User(email.to_owned())),
            _ => Err("a Google service account is called name@project.iam.gserviceaccount.com".to_owned()),
        }
    }

    /// `NAMESPACE/NAME` or `NAMESPACE:NAME`.
    pub(crate) fn service_account(text: &str) -> Result<Self, String> {
        let (namespace, name) = text
            .split_once(['/', ':'])
            .ok_or_else(|| format!("{text:?} is not namespace/name"))?;
        Ok(Self::ServiceAccount {
            namespace: namespace.parse()?,
            name: name.parse()?,
        })
    }

    /// The group, where the API server puts everybody, or every pod, into it.
    pub(super) fn broad(&self) -> Option<&str> {
        match self {
            Self::Group(name) if BROAD.contains(&name.as_str()) => Some(name),
            _ => None,
        }
    }

    pub(super) fn object(&self) -> Value {
        const GROUP: &str = "rbac.authorization.k8s.io";
        match self {
            Self::User(name) => json!({"apiGroup": GROUP, "kind": "User", "name": name}),
            Self::Group(name) => json!({"apiGroup": GROUP, "kind": "Group", "name": name}),
            Self::ServiceAccount { namespace, name } => {
                json!({"kind": "ServiceAccount", "name": name.as_str(), "namespace": namespace.as_str()})
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn port_has_a_name_that_kubernetes_takes() {
        let port: Port = "grpc:80:3550".parse().unwrap();
        assert_eq!((port.name.as_str(), port.port, port.target), ("grpc", 80, 3550));
        assert_eq!("grpc:3550".parse::<Port>().unwrap().target, 3550);
        let wrong = [
            "3550",
            "grpc:0",
            "grpc:1:2:3",
            "grpc:65536",
            "80:80",
            "grpc-with-a-long-name:80",
            "Grpc:80",
            ":80",
        ];
        for text in wrong {
            assert!(text.parse::<Port>().is_err(), "{text}");
        }
    }

    #[test]
    fn google_service_account_is_an_email_of_google() {
        let email = "vm@boutique.iam.gserviceaccount.com";
        assert_eq!(Subject::google(email).unwrap(), Subject::User(email.to_owned()));
        for text in ["jane@example.com", "@iam.gserviceaccount.com", "x.gserviceaccount.com"] {
            assert!(Subject::google(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn name_is_read_as_it_is_or_not_at_all(text in ".{0,70}") {
            if let Ok(name) = text.parse::<Name>() {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'));
            }
        }

        #[test]
        fn name_of_any_argument_is_read_without_a_panic(text in "[a-z0-9:/.@-]{0,40}") {
            let _ = text.parse::<Port>();
            let _ = text.parse::<ServiceName>();
            let _ = Subject::service_account(&text);
            let _ = Subject::google(&text);
        }
    }
}
