//! Where a verb's configuration comes from: the file; without one, on Compute Engine, the instance's metadata; and
//! while that doesn't answer, what it said last. Elsewhere nobody is asked, and nothing kept is believed.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod of_unit;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::config::{self, Attributes, Config, ConfigError, PathsConfig, env};
use crate::google::{self, Metadata};
use crate::host::{Host, Machine, Read};
use crate::join::Join;

pub(super) use of_unit::{of_agent, of_unit};

/// A few hundred kilobytes at most, by the metadata server's own bounds.
const MAX_BYTES: usize = 2 << 20;
/// In the state directory: what the metadata said last, 0600.
const METADATA_FILE: &str = "instance-metadata.json";

#[derive(Deserialize, Serialize)]
struct CachedMetadata {
    /// The machine whose metadata it is; absent: an agent wrote it that made no mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    machine: Option<Machine>,
    #[serde(flatten)]
    attributes: Attributes,
}

/// A configuration, and where it was.
#[derive(Debug)]
pub(super) struct LoadedConfig {
    pub(super) config: Config,
    /// Place of the configuration, in words.
    pub(super) origin: String,
    /// To be kept, when it came from the metadata just now.
    fresh: Option<Attributes>,
}

/// The places that are looked at for a configuration.
#[derive(Debug)]
pub(super) struct ConfigSource {
    file: PathBuf,
    host: Host,
    kept: PathBuf,
    /// True where the operator names the file: then it is that or nothing.
    is_named: bool,
    /// Absent then, and where there is no metadata server to be asked.
    metadata: Option<Metadata>,
}

impl ConfigSource {
    pub(super) fn new(file: &Path, host: &Host) -> Result<Self> {
        let is_named = file != Path::new(config::DEFAULT_PATH);
        let asks = !is_named && google::metadata_host(host).is_some();
        Ok(Self {
            file: file.to_owned(),
            host: host.clone(),
            kept: env::state_directory().join(METADATA_FILE),
            is_named,
            metadata: asks.then(|| Metadata::of_this_vm(host)).transpose()?,
        })
    }

    /// Tells whether the file is there that [`Config::load`] would read.
    fn has_file(&self) -> io::Result<bool> {
        Ok(Host::system().target_meta(&self.file)?.is_some())
    }

    /// The configuration as it is now; asks the network only without a file. A [`ConfigError`] is for the operator;
    /// any other error may be gone at the next try.
    pub(super) async fn find(&self) -> Result<LoadedConfig> {
        if self.is_named || self.has_file()? {
            return Ok(LoadedConfig {
                config: Config::load(&self.file)?,
                origin: self.file.display().to_string(),
                fresh: None,
            });
        }
        let missing = |problem: &str| ConfigError::new(&self.file, format!("is missing, and {problem}"));
        let Some(metadata) = &self.metadata else {
            return Err(missing("this VM is not on Google Compute Engine: write it").into());
        };
        match ask(metadata).await {
            Ok(Some(attributes)) => Ok(LoadedConfig {
                config: Config::from_attributes(&attributes)?,
                origin: "the metadata of this instance".to_owned(),
                fresh: Some(attributes),
            }),
            Ok(None) => Err(missing("this instance's metadata has no istio-vm-agent-config or -cluster either").into()),
            Err(error) => match self.kept()? {
                Some(kept) => Ok(LoadedConfig {
                    config: Config::from_attributes(&kept)?,
                    origin: format!("what the metadata of this instance said last ({error:#})"),
                    fresh: None,
                }),
                None => Err(error),
            },
        }
    }

    /// The configuration that is known without the network. `None`: there is no file, and the metadata has never said
    /// anything.
    pub(super) fn at_hand(&self) -> Result<Option<Config>> {
        if self.is_named || self.has_file()? {
            return Ok(Some(Config::load(&self.file)?));
        }
        let kept = self.kept()?;
        Ok(kept.map(|kept| Config::from_attributes(&kept)).transpose()?)
    }

    /// The configuration at hand, for a verb that has something to do without one: then the default. A default file
    /// that is damaged must keep nobody from putting a host back; one that the operator names is that or nothing.
    ///
    /// # Errors
    /// When the file that the operator names is missing or can't be used.
    pub(super) fn at_hand_or_default(file: &Path, host: &Host) -> Result<Config> {
        let found = Self::new(file, host).and_then(|source| source.at_hand());
        match found {
            Err(error) if file != Path::new(config::DEFAULT_PATH) => Err(error),
            Err(error) => {
                let paths = Config::paths_of(file);
                let used = match paths {
                    Some(_) => "only its [paths] are used",
                    None => "the defaults are used",
                };
                let _ = writeln!(io::stderr(), "istio-vm-agent: {error:#}\nUntil that is mended {used}.");
                Ok(Config {
                    paths: paths.unwrap_or_default(),
                    ..Config::default()
                })
            }
            Ok(found) => Ok(found.unwrap_or_default()),
        }
    }

    /// [`ConfigSource::find`] for a verb that can do without a configuration. `None`: there is none.
    pub(super) async fn find_any(&self) -> Result<Option<Config>> {
        if let Some(metadata) = &self.metadata
            && !self.has_file()?
            && let Ok(attributes) = ask(metadata).await
        {
            let config = attributes.map(|attributes| Config::from_attributes(&attributes));
            return Ok(config.transpose()?);
        }
        self.at_hand()
    }

    /// Keeps what the metadata said, for verbs that need it at once.
    pub(super) fn keep(&self, found: &LoadedConfig) -> Result<()> {
        let Some(attributes) = &found.fresh else {
            return Ok(());
        };
        let folder = self.kept.parent().unwrap_or_else(|| Path::new("/"));
        self.host.make_directory(folder, 0o700, None)?;
        let kept = CachedMetadata {
            machine: Some(self.host.machine()),
            attributes: attributes.clone(),
        };
        let text = serde_json::to_string_pretty(&kept).context("failed to encode the attributes")?;
        self.host.write(&self.kept, &text, 0o600, None)?;
        Ok(())
    }

    /// True where there is a configuration, or on this machine soon may be one.
    pub(super) async fn any(&self) -> Result<bool> {
        if self.has_file()? {
            return Ok(true);
        }
        let Some(metadata) = &self.metadata else {
            return Ok(false);
        };
        // Where it doesn't answer the start tries again; this question is asked once.
        Ok(ask(metadata).await.map_or(true, |attributes| attributes.is_some()))
    }

    /// `None`: nothing is kept, or it is another machine's, of whose disk this one's is a copy.
    fn kept(&self) -> Result<Option<Attributes>> {
        if self.metadata.is_none() {
            return Ok(None);
        }
        let Some(text) = self.host.read(&self.kept, Read::max(MAX_BYTES))? else {
            return Ok(None);
        };
        let kept: CachedMetadata =
            serde_json::from_str(&text).with_context(|| format!("{} is damaged: remove it", self.kept.display()))?;
        let is_foreign = kept.machine.is_some_and(|of| self.host.machine().is_another_than(&of));
        Ok((!is_foreign).then_some(kept.attributes))
    }
}

/// The configuration and its source, as good as they can be known to be without asking the source. What came with the
/// instance is kept: it is as good as it gets.
pub(super) async fn prepare(path: &Path, host: &Host) -> Result<(LoadedConfig, Join)> {
    let source = ConfigSource::new(path, host)?;
    let found = source.find().await?;
    let join = Join::open(&found.config, host)?;
    join.check()?;
    source.keep(&found)?;
    Ok((found, join))
}

/// A configuration that the running agent can take up.
pub(super) fn fits(config: Config, paths: &PathsConfig) -> Result<Config, ConfigError> {
    if config.paths == *paths {
        return Ok(config);
    }
    Err(moved(&config))
}

/// The error of a configuration with other directories than the running agent's.
pub(super) fn moved(config: &Config) -> ConfigError {
    config.places.locate(ConfigError::key(
        "paths",
        "can't change while the agent runs: stop it, then start it",
    ))
}

/// Ours of the instance's attributes, complete; `None` when it has none.
async fn ask(metadata: &Metadata) -> Result<Option<Attributes>> {
    let (instance, project) = tokio::try_join!(metadata.instance_attributes(), metadata.project_attributes())?;
    let mut attributes = config::ours(instance, project);
    if config::short_cluster(&attributes).is_some() {
        let (project, zone) = tokio::try_join!(metadata.project(), metadata.zone())?;
        config::complete(&mut attributes, &project, &zone);
    }
    Ok((!attributes.is_empty()).then_some(attributes))
}
