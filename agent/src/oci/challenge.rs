//! A registry's demand for credentials: the header `WWW-Authenticate` (RFC 9110, 11.6.1; distribution/docs/spec/auth).
//! Pure.

use std::collections::BTreeMap;

/// Whatever a registry wants to be shown.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token of a server's.
    Bearer {
        /// URL of that server.
        realm: String,
        /// Name of the registry to that server; absent: it needs none.
        service: Option<String>,
    },
}

impl Challenge {
    /// The challenge in a header's value; `None` when it has none that is known.
    pub(super) fn parse(header: &str) -> Option<Self> {
        let header = header.trim();
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut parameters = parameters(rest);
        Some(Self::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
        })
    }
}

/// `name="value"` or `name=value`, with commas between; ends at what is neither.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(name, value.trim().to_owned());
        rest = after;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenge_is_read_as_registries_write_it() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
            })
        };
        let cases = [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                bearer("https://auth.docker.io/token", Some("registry.docker.io")),
            ),
            (
                r#"bearer scope="a,b=c", realm="https://h/t?x=1""#,
                bearer("https://h/t?x=1", None),
            ),
            ("Bearer realm=https://h/t, service=s", bearer("https://h/t", Some("s"))),
            (r#"Basic realm="Registry""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            ("Negotiate", None),
            (r#"Bearer service="s""#, None),
            ("", None),
        ];
        for (header, wanted) in cases {
            assert_eq!(Challenge::parse(header), wanted, "{header}");
        }
    }
}
