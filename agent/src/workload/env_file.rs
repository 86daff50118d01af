//! Files of a container's variables.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow};

use crate::config::{ContainerConfig, is_variable};
use crate::host::{Host, Read};

/// The longest file of variables that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;

/// The variables of `config`: those of its files, and over them its own.
pub(super) fn variables(host: &Host, config: &ContainerConfig) -> Result<BTreeMap<String, String>> {
    let mut variables = BTreeMap::new();
    for path in &config.env_files {
        variables.extend(read(host, path).context("workload.container.env_files")?);
    }
    variables.extend(config.env.clone());
    Ok(variables)
}

/// The variables of one file.
///
/// # Errors
/// When it is not there, can't be read, or a line of it is none.
pub(super) fn read(host: &Host, path: &Path) -> Result<BTreeMap<String, String>> {
    let text = host.read(path, Read::max(MAX_BYTES).following_links())?;
    let text = text.with_context(|| format!("{} is not there", path.display()))?;
    parse(&text).map_err(|(line, problem)| anyhow!("{}:{line}: {problem}", path.display()))
}

/// Reads lines of `NAME=value` as `docker run --env-file` does: all that is after the `=` is the value, quotes included;
/// empty lines and those that begin with `#` are none. The error is the number of a line and its problem.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, &'static str)> {
    let mut variables = BTreeMap::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err((
                number,
                "is no NAME=value, and variables of the VM are nobody's in a container",
            ));
        };
        if !is_variable(name) || value.contains('\0') {
            return Err((number, "has no variable's name before the ="));
        }
        variables.insert(name.to_owned(), value.to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    #[test]
    fn env_file_is_read_as_docker_does() {
        let text = "\u{feff}# a comment\n\nA=1\r\n  B= two = 2 \nQUOTED=\"x\"\nEMPTY=\n";
        let wanted = [("A", "1"), ("B", " two = 2 "), ("EMPTY", ""), ("QUOTED", "\"x\"")];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(parse(text).unwrap(), BTreeMap::from(wanted));
        for (text, line) in [("A=1\nHOME\n", 2), ("=1", 1), ("A B=1", 1), ("A=\0", 1)] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text:?}");
        }
    }

    #[test]
    fn variables_of_the_configuration_win_over_those_of_files() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let config: ContainerConfig = toml::from_str(
            "name = 'web'\nimage = 'web:1'\nenv = { A = 'own' }\nenv_files = ['/one.env', '/two.env']\n",
        )
        .unwrap();
        std::fs::write(root.path().join("one.env"), "A=1\nB=1\nC=1\n").unwrap();
        let missing = format!("{:#}", variables(&host, &config).unwrap_err());
        assert_eq!(missing, "workload.container.env_files: /two.env is not there");
        std::fs::write(root.path().join("two.env"), "B=2\nsecret\n").unwrap();
        let wrong = format!("{:#}", variables(&host, &config).unwrap_err());
        assert!(
            wrong.contains("/two.env:2: is no NAME=value") && !wrong.contains("secret"),
            "{wrong}"
        );
        std::fs::write(root.path().join("two.env"), "B=2\n").unwrap();
        let found = variables(&host, &config).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(found, ["A=own", "B=2", "C=1"]);
    }
}
