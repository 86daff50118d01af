//! The bundle's `hosts` file: `address name…` lines, as in hosts(5).

use crate::facts::HostEntry;

use super::document::ParseError;

/// More lines than this is somebody's own /etc/hosts.
const MAX_LINES: usize = 1000;
const REFUSED: &str = "is none that the join needs, and a bundle may name no other: those are istiod's, such as \
                       istiod.istio-system.svc, and what control_plane.addresses and network.hosts_allow have";

/// Parses a whole file; one without entries is fine. A name with several lines has several addresses. What `allows`
/// refuses is an error. None quotes the file, which may turn out to be another one than was meant.
pub(super) fn parse(text: &str, allows: impl Fn(&str) -> bool) -> Result<Vec<HostEntry>, ParseError> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = content.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        let at = |problem: String| ParseError::at(index + 1, problem);
        if entries.len() == MAX_LINES {
            return Err(at(format!("has more than {MAX_LINES} entries")));
        }
        let ip = first
            .parse()
            .map_err(|_| at("does not begin with an IP address".to_owned()))?;
        let names: Vec<String> = words.map(str::to_owned).collect();
        if names.is_empty() {
            return Err(at("has no name after the address: the file is truncated".to_owned()));
        }
        if let Some(place) = names.iter().position(|name| !is_host_name(name)) {
            return Err(at(format!("name {} is not a host name", place + 1)));
        }
        if let Some(place) = names.iter().position(|name| !allows(name)) {
            return Err(at(format!("name {} {REFUSED}", place + 1)));
        }
        entries.push(HostEntry { ip, names });
    }
    Ok(entries)
}

/// What goes into /etc/hosts must stay one word of one line there.
fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(ip: &str, names: &[&str]) -> HostEntry {
        HostEntry {
            ip: ip.parse().unwrap(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn lines_comments_and_several_addresses_are_read() {
        let text = "# the mesh\n10.0.0.2 istiod.istio-system.svc a # b\n\n\tfd00::2\tistiod.istio-system.svc\r\n";
        let wanted = [
            entry("10.0.0.2", &["istiod.istio-system.svc", "a"]),
            entry("fd00::2", &["istiod.istio-system.svc"]),
        ];
        assert_eq!(parse(text, |_| true).unwrap(), wanted);
        assert_eq!(parse("", |_| true).unwrap(), []);
    }

    #[test]
    fn broken_lines_are_named() {
        let cases = [
            ("\nsecret istiod", 2, "does not begin with an IP address"),
            ("10.0.0.2", 1, "has no name after the address"),
            ("10.0.0.2 istiod secret;", 1, "name 2 is not a host name"),
            (
                "10.0.0.2 istiod\n10.0.0.2 istiod secret",
                2,
                "name 2 is none that the join needs",
            ),
        ];
        for (text, line, wanted) in cases {
            let error = parse(text, |name| name == "istiod").unwrap_err();
            assert_eq!(error.line, Some(line), "{error:?}");
            assert!(error.problem.starts_with(wanted), "{error:?}");
            assert!(!error.problem.contains("secret"), "{error:?}");
        }
        assert!(parse(&"::1 a\n".repeat(MAX_LINES + 1), |_| true).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text, |name| name.len() < 9);
        }
    }
}
