//! The bundle's `hosts` file: `address name…` lines, as in hosts(5).

use std::net::IpAddr;

use crate::facts::{HostEntry, is_host_name, is_of_a_machine};

use super::cluster_env::BYTE_ORDER_MARK;
use super::origin::{ParseError, Position};

/// More entries are somebody's own /etc/hosts.
const MAX_ENTRIES: usize = 1000;
const REFUSED: &str = "is none that the join needs, and a bundle may name no other: those are istiod's, such as \
                       istiod.istio-system.svc, and what control_plane.addresses and network.hosts_allow have";

/// Parses a whole file into entries and their lines; one without entries is fine. A name with several lines has several
/// addresses. No error quotes the file, which may turn out to be another one than was meant.
pub(super) fn parse(text: &str) -> Result<Vec<(Position, HostEntry)>, ParseError> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut entries = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split('#').next().unwrap_or_default();
        let mut words = content.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        let before = content.chars().take_while(char::is_ascii_whitespace).count();
        let place = Position::Column(line, before + 1);
        let ip: IpAddr = first.parse().map_err(|_| {
            ParseError::at(
                place,
                "does not begin with an IP address: a line is one, such as 10.200.0.2, and names after it",
            )
        })?;
        if !is_of_a_machine(ip) {
            let problem = format!("{ip} is the address of no machine: write the one that istiod is reached at");
            return Err(ParseError::at(place, problem));
        }
        if matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            let problem =
                format!("{ip} is link-local, and of no interface here: write an address that istiod is reached at");
            return Err(ParseError::at(place, problem));
        }
        let names: Vec<String> = words.map(str::to_owned).collect();
        if names.is_empty() {
            let problem = "has no name after the address: the file is truncated";
            return Err(ParseError::at(place, problem));
        }
        entries.push((place, HostEntry { ip, names }));
    }
    Ok(entries)
}

/// Refuses too many entries, a name that is none, and one that `allows` refuses: with the index of the entry. No error
/// quotes a name.
pub(super) fn check(entries: &[HostEntry], allows: impl Fn(&str) -> bool) -> Result<(), (usize, String)> {
    if entries.len() > MAX_ENTRIES {
        return Err((
            MAX_ENTRIES,
            format!("has more than {MAX_ENTRIES} entries: it is another file"),
        ));
    }
    for (index, HostEntry { names, .. }) in entries.iter().enumerate() {
        if let Some(place) = names.iter().position(|name| !is_host_name(name)) {
            return Err((
                index,
                format!(
                    "the {} name of the line is not a host name: letters, digits, '.' and '-'",
                    ordinal(place)
                ),
            ));
        }
        if let Some(place) = names.iter().position(|name| !allows(name)) {
            return Err((index, format!("the {} name of the line {REFUSED}", ordinal(place))));
        }
    }
    Ok(())
}

/// The word for a place that is counted from 0.
fn ordinal(place: usize) -> String {
    match place {
        0 => "first".to_owned(),
        1 => "second".to_owned(),
        2 => "third".to_owned(),
        _ => format!("{}th", place + 1),
    }
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

    /// The error about a file in which only istiod may be named.
    fn error(text: &str) -> Option<ParseError> {
        let entries = match parse(text) {
            Ok(entries) => entries,
            Err(error) => return Some(error),
        };
        let (lines, entries): (Vec<Position>, Vec<HostEntry>) = entries.into_iter().unzip();
        let refused = check(&entries, |name| name == "istiod").err();
        refused.map(|(index, problem)| ParseError::at(lines[index], problem))
    }

    #[test]
    fn hosts_lines_comments_and_several_addresses_are_read() {
        let text = "# the mesh\n10.0.0.2 istiod.istio-system.svc a # b\n\n\tfd00::2\tistiod.istio-system.svc\r\n";
        let wanted = [
            entry("10.0.0.2", &["istiod.istio-system.svc", "a"]),
            entry("fd00::2", &["istiod.istio-system.svc"]),
        ];
        let [first, second] = wanted;
        assert_eq!(
            parse(text).unwrap(),
            [(Position::Column(2, 1), first), (Position::Column(4, 2), second)]
        );
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn hosts_lines_that_are_broken_are_named() {
        let cases = [
            ("\nsecret istiod", 2, "does not begin with an IP address"),
            ("0.0.0.0 istiod", 1, "0.0.0.0 is the address of no machine"),
            ("ff02::1 istiod", 1, "ff02::1 is the address of no machine"),
            (
                "255.255.255.255 istiod",
                1,
                "255.255.255.255 is the address of no machine",
            ),
            ("10.0.0.2", 1, "has no name after the address"),
            (
                "10.0.0.2 istiod secret;",
                1,
                "the second name of the line is not a host name",
            ),
            (
                "10.0.0.2 istiod\n10.0.0.2 istiod secret",
                2,
                "the second name of the line is none that the join needs",
            ),
        ];
        for (text, line, wanted) in cases {
            let error = error(text).unwrap();
            assert_eq!(error.line(), Some(line), "{error:?}");
            assert!(error.problem.starts_with(wanted), "{error:?}");
            assert!(!error.problem.contains("secret"), "{error:?}");
        }
        let error = error(&"::1 istiod\n".repeat(MAX_ENTRIES + 1)).unwrap();
        assert_eq!(
            (error.line(), error.problem.split(':').next()),
            (Some(1001), Some("has more than 1000 entries"))
        );
    }

    proptest! {
        #[test]
        fn hosts_lines_of_any_text_are_read_without_a_panic(text in any::<String>()) {
            let _ = error(&text);
        }
    }
}
