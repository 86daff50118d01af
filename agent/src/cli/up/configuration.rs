//! The configuration file: one that is there is never lost, and what `up` has no word on stays in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::source::EnvoyArguments;
use crate::config::Config;
use crate::host::{Host, Owner, Read};

/// A file larger than this is no configuration.
const MAX_BYTES: usize = 1 << 20;
/// Only root reads what is in it.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Keys of `[envoy]` that choose its program.
const OF_PROGRAM: [&str; 6] = ["binary", "image", "registry_config", "url", "sha256", "ca_file"];
/// Whatever group this process has taken.
const ROOT: Option<Owner> = Some(Owner { uid: 0, gid: 0 });

/// The file as it is.
pub(super) struct File {
    path: PathBuf,
    text: Option<String>,
}

/// Settings that are there beside `[join]`, without comments.
pub(super) struct Settings {
    /// The keys of `[envoy]` that choose its program.
    pub(super) program: Table,
    /// The others of `[envoy]`.
    pub(super) of_envoy: Table,
    pub(super) rest: Table,
}

impl File {
    pub(super) fn read(host: &Host, path: &Path) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            text: host.read(path, Read::max(MAX_BYTES).following_links())?,
        })
    }

    pub(super) fn is_there(&self) -> bool {
        self.text.is_some()
    }

    /// The configuration that is there, when it has this source and an Envoy that fits; it may have more.
    pub(super) fn that_says(&self, wanted: &Config, envoy: &EnvoyArguments) -> Result<Option<Config>> {
        let Some(text) = &self.text else { return Ok(None) };
        // One that is damaged says nothing.
        let there = Config::parse(&self.path, text).ok();
        Ok(there.filter(|there| there.join == wanted.join && envoy.fit(there)))
    }

    pub(super) fn expect_replaceable(&self, force: bool) -> Result<()> {
        if self.is_there() && !force {
            bail!(
                "{} is there and says otherwise: `istio-vm-agent up` without a source goes on with it; --force writes the \
                 [join] and the Envoy that are named here, leaves its other settings, and keeps a copy",
                self.path.display()
            );
        }
        Ok(())
    }

    /// A file that is damaged has none.
    pub(super) fn settings(&self) -> Settings {
        let text = self.text.as_deref().unwrap_or_default();
        let is_good = Config::parse(&self.path, text).is_ok();
        let mut rest: Table = is_good.then(|| text.parse().ok()).flatten().unwrap_or_default();
        rest.remove("join");
        let envoy = match rest.remove("envoy") {
            Some(Value::Table(envoy)) => envoy,
            _ => Table::new(),
        };
        let is_of_program = |(key, _): &(String, Value)| OF_PROGRAM.contains(&key.as_str());
        let (program, of_envoy) = envoy.into_iter().partition(is_of_program);
        Settings {
            program,
            of_envoy,
            rest,
        }
    }

    /// Writes a new text, and returns where the one before is kept: no copy takes the place of an earlier one.
    pub(super) fn write(&self, host: &Host, text: &str) -> Result<Option<PathBuf>> {
        let folder = self.path.parent().context("--config names no file")?;
        if !host.exists(folder) {
            host.make_directory(folder, DIRECTORY_MODE, ROOT)?;
        }
        let kept = match &self.text {
            Some(before) => {
                let copy = copy_of(&self.path, copies(host, &self.path).len() + 1);
                host.write(&copy, before, FILE_MODE, ROOT)?;
                Some(copy)
            }
            None => None,
        };
        host.write(&self.path, text, FILE_MODE, ROOT)?;
        Ok(kept)
    }
}

/// The places of what `up --force` wrote over, the first one first.
pub(in crate::cli) fn copies(host: &Host, path: &Path) -> Vec<PathBuf> {
    (1..)
        .map(|number| copy_of(path, number))
        .take_while(|copy| host.exists(copy))
        .collect()
}

fn copy_of(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".before-up");
    if number > 1 {
        name.push(format!(".{number}"));
    }
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    const PATH: &str = "/etc/istio-vm-agent/config.toml";

    fn config(text: &str) -> Config {
        Config::parse(Path::new(PATH), text).unwrap()
    }

    #[test]
    fn configuration_that_is_there_is_kept_or_kept_as_a_copy() {
        let root = tempfile::tempdir().unwrap();
        let (host, path) = (Host::new(root.path(), System), Path::new(PATH));
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let (none, any) = (File::read(&host, path).unwrap(), EnvoyArguments::default());
        let one = "[join.directory]\npath = '/one'\n[envoy]\nbinary = '/e'\n";
        assert!(none.that_says(&config(one), &any).unwrap().is_none());
        none.expect_replaceable(false).unwrap();
        assert_eq!(none.write(&host, one).unwrap(), None);

        let file = File::read(&host, path).unwrap();
        let same = "[join.directory]\npath = '/one'\n";
        assert_eq!(file.that_says(&config(same), &any).unwrap(), Some(config(one)));
        let another = "[join.directory]\npath = '/other'\n";
        assert_eq!(file.that_says(&config(another), &any).unwrap(), None);
        let error = file.expect_replaceable(false).unwrap_err().to_string();
        assert!(error.contains("--force"), "{error}");
        file.expect_replaceable(true).unwrap();
        let copy = file.write(&host, another).unwrap().unwrap();
        assert_eq!(copy, Path::new("/etc/istio-vm-agent/config.toml.before-up"));
        let read = |path: &Path| host.read(path, Read::max(MAX_BYTES)).unwrap();
        assert_eq!(
            (read(&copy).as_deref(), read(path).as_deref()),
            (Some(one), Some(another))
        );

        let file = File::read(&host, path).unwrap();
        let second = file.write(&host, one).unwrap().unwrap();
        assert_eq!(second, Path::new("/etc/istio-vm-agent/config.toml.before-up.2"));
        assert_eq!(
            (read(&copy).as_deref(), read(&second).as_deref()),
            (Some(one), Some(another))
        );
        assert_eq!(copies(&host, path), [copy, second]);
    }

    #[test]
    fn settings_beside_the_source_are_told_apart() {
        let settings = |text: &str| {
            let text = Some(text.to_owned());
            let path = PathBuf::from(PATH);
            let Settings {
                program,
                of_envoy,
                rest,
            } = File { path, text }.settings();
            [program, of_envoy, rest].map(|table| table.to_string())
        };
        let text = "[join.directory]\npath = '/one'\n[envoy]\nbinary = '/e'\nconcurrency = 2\n[log]\nlevel = 'debug'\n";
        assert_eq!(
            settings(text),
            ["binary = \"/e\"\n", "concurrency = 2\n", "[log]\nlevel = \"debug\"\n"]
        );
        assert_eq!(settings("[joins]\nx = 1\n"), ["", "", ""]);
    }
}
