//! The bundle's `hosts` file: `address name…` lines, as in hosts(5).

use crate::facts::HostEntry;

use super::document::Flaw;

/// More lines than this is somebody's own /etc/hosts.
const MAX_LINES: usize = 1000;

/// Parses a whole file; one without entries is fine. A name with several lines has several addresses.
pub(super) fn parse(text: &str) -> Result<Vec<HostEntry>, Flaw> {
    let mut entries = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default();
        let mut words = content.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        let at = |problem: String| Flaw::at(index + 1, problem);
        if entries.len() == MAX_LINES {
            return Err(at(format!("has more than {MAX_LINES} entries")));
        }
        let ip = first
            .parse()
            .map_err(|_| at(format!("{}: is not an IP address", shown(first))))?;
        let names: Vec<String> = words.map(str::to_owned).collect();
        if names.is_empty() {
            return Err(at(format!("{ip}: has no name: the file is truncated")));
        }
        if let Some(name) = names.iter().find(|name| !is_host_name(name)) {
            return Err(at(format!("{}: is not a host name", shown(name))));
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

fn shown(word: &str) -> String {
    word.chars().take(64).collect()
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
        assert_eq!(parse(text).unwrap(), wanted);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn broken_lines_are_named() {
        let cases = [
            ("\nlb.example istiod", 2, "lb.example: is not an IP address"),
            ("10.0.0.2", 1, "10.0.0.2: has no name"),
            ("10.0.0.2 a;b", 1, "a;b: is not a host name"),
        ];
        for (text, line, wanted) in cases {
            let flaw = parse(text).unwrap_err();
            assert_eq!(flaw.line, Some(line), "{flaw:?}");
            assert!(flaw.problem.starts_with(wanted), "{flaw:?}");
        }
        assert!(parse(&"::1 a\n".repeat(MAX_LINES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
