//! `guard`: on boot, before dockerd publishes a port: the rules for calls to this VM, so that none reaches the
//! application past Envoy until the agent has joined again. Calls from this VM wait for nobody.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::configuration::Places;
use super::{Verdict, say};
use crate::config::FailPolicy;
use crate::host::Host;
use crate::intercept;
use crate::join::Join;

pub(super) fn run(path: &Path, unit: &str) -> Result<Verdict> {
    let host = Host::system();
    let path = configured(&host, path, unit);
    let Some(config) = Places::new(&path, &host)?.at_hand()? else {
        return say("This VM has never had a configuration: there is nothing to guard yet.\n");
    };
    if config.intercept.on_envoy_down.inbound == FailPolicy::Open {
        return say(
            "intercept.on_envoy_down.inbound is \"open\": calls are taken past the mesh until Envoy is ready.\n",
        );
    }
    // Where it never has joined, nobody relies on it yet.
    if host.meta(&config.paths.identity())?.is_none() {
        return say("This VM has never been in a mesh: there is nothing to guard yet.\n");
    }
    let Some(membership) = Join::open(&config, &host)?.at_hand()? else {
        return say("This VM has never been in a mesh: there is nothing to guard yet.\n");
    };
    intercept::guard(&membership, &intercept::Options::new(host.clone(), &config))?.apply(&host)?;
    say("Calls to this VM are refused until the agent has joined the mesh.\n")
}

/// The configuration that the agent's unit names, where an operator has given it another one.
fn configured(host: &Host, path: &Path, unit: &str) -> PathBuf {
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
