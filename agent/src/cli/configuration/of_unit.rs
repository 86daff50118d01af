//! The configuration of the agent's unit, for the verbs of its other units: they must speak of the same agent. And that
//! of an agent that runs.

use std::path::{Path, PathBuf};

use crate::config;
use crate::host::Host;

/// The configuration that the agent's unit names, where an operator has given it another one than `path`.
pub(in crate::cli) fn of_unit(host: &Host, path: &Path, unit: &str) -> PathBuf {
    let command = host.unit_property(unit, "ExecStart").unwrap_or_default();
    // systemd prints `{ path=… ; argv[]=PROGRAM run … ; … }`.
    named(command.split_whitespace()).unwrap_or_else(|| path.to_owned())
}

/// The configuration that the agent with this pid was started with; `None` when it can't be seen.
pub(in crate::cli) fn of_agent(host: &Host, pid: u32) -> Option<PathBuf> {
    let command = host.command_line(pid)?;
    let named = named(command.split('\0')).unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATH));
    // What is relative is so to the agent's folder.
    Some(Path::new(&format!("/proc/{pid}/cwd")).join(named))
}

/// `--config PATH` or `--config=PATH` among the words of a command.
fn named<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<PathBuf> {
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
    use crate::host::System;

    #[test]
    fn unit_s_own_configuration_is_found() {
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
            let found = named(command(words).split_whitespace());
            assert_eq!(found, expected.map(PathBuf::from), "{words}");
        }
        assert_eq!(named("".split_whitespace()), None);
    }

    #[test]
    fn configuration_of_an_agent_is_what_it_was_started_with() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        std::fs::create_dir_all(root.path().join("proc/7")).unwrap();
        for (words, expected) in [
            ("/usr/bin/istio-vm-agent\0run\0", config::DEFAULT_PATH),
            (
                "istio-vm-agent\0--config\0/srv/my agent.toml\0run\0",
                "/srv/my agent.toml",
            ),
            ("istio-vm-agent\0run\0--config=agent.toml\0", "/proc/7/cwd/agent.toml"),
        ] {
            std::fs::write(root.path().join("proc/7/cmdline"), words).unwrap();
            assert_eq!(of_agent(&host, 7), Some(PathBuf::from(expected)), "{words}");
        }
        assert_eq!(of_agent(&host, 8), None);
    }
}
