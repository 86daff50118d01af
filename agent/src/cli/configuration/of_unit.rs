//! The configuration of the agent's unit, for the verbs of its other units: they must speak of the same agent.

use std::path::{Path, PathBuf};

use crate::host::Host;

/// The configuration that the agent's unit names, where an operator has given it another one than `path`.
pub(in crate::cli) fn of_unit(host: &Host, path: &Path, unit: &str) -> PathBuf {
    let command = host.unit_property(unit, "ExecStart").unwrap_or_default();
    named(&command).unwrap_or_else(|| path.to_owned())
}

/// `--config PATH` or `--config=PATH` in what systemd prints of a command: `{ path=… ; argv[]=PROGRAM run … ; … }`.
fn named(command: &str) -> Option<PathBuf> {
    let mut words = command.split_whitespace();
    while let Some(word) = words.next() {
        match word.strip_prefix("--config") {
            Some("") => return words.next().map(PathBuf::from),
            Some(rest) if rest.starts_with('=') => return Some(PathBuf::from(&rest[1..])),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_s_own_configuration_is_found() {
        let command = |words: &str| {
            format!(
                "{{ path=/usr/bin/istio-vm-agent ; argv[]=/usr/bin/istio-vm-agent {words} ; ignore_errors=no ; pid=0 }}"
            )
        };
        for (words, expected) in [
            ("run --envoy-unit e@.service --unit u.service", None),
            ("run --config /srv/agent.toml --unit u.service", Some("/srv/agent.toml")),
            ("--config=/srv/agent.toml run", Some("/srv/agent.toml")),
        ] {
            assert_eq!(named(&command(words)), expected.map(PathBuf::from), "{words}");
        }
        assert_eq!(named(""), None);
    }
}
