//! Settings of Istio's own agent as our configuration and bundle. Reads; writes nothing.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use std::fmt;
use std::path::Path;

use super::files::{self, CLUSTER_ENV, SIDECAR_ENV};
use super::hosts_lines::{self, Split};
use super::keys::{self, ImportedConfig};
use super::settings::{Note, Settings};
use crate::config::ConfigError;
use crate::facts::{HostPort, PrivateKey};
use crate::host::Host;

/// All of it.
#[derive(Debug)]
pub struct Import {
    /// The configuration file.
    pub config: String,
    /// The bundle's files.
    pub bundle: Bundle,
    /// The last certificate that Istio's agent was given.
    pub certificate: Option<Certificate>,
    /// The fate of each setting.
    pub notes: Vec<Note>,
}

/// Names and texts of the bundle's files.
pub struct Bundle(Vec<(&'static str, String)>);

/// PEM documents that belong together, unchecked.
#[derive(Debug)]
pub struct Certificate {
    /// The key of the first certificate of the chain.
    pub key: PrivateKey,
    /// Leaf first, root last.
    pub chain: String,
}

impl Bundle {
    /// Name and text of each.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(name, text)| (*name, text.as_str()))
    }
}

impl fmt::Debug for Bundle {
    /// Without the texts, one of which is a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Reads everything; `directory` is where the bundle is to be.
///
/// # Errors
/// When a file that it needs is missing or can't be read.
pub fn import(host: &Host, settings: &Settings, directory: &Path) -> Result<Import, ConfigError> {
    let mesh = mesh(host)?;
    let Split { taken: hosts, .. } = hosts(host, settings, &mesh)?;
    let mut bundle = vec![
        ("cluster.env", cluster_env(host, settings)?),
        ("hosts", hosts.clone()),
        ("root-cert.pem", roots(host, settings)?),
    ];
    bundle.extend(files::read(host, Path::new(files::TOKEN))?.map(|token| ("istio-token", token)));
    let mut imported = ImportedConfig::default();
    let notes = keys::notes(settings, &mut imported);
    let names = outside(&hosts, imported.cluster_domain.as_deref());
    bundle.push(("mesh.yaml", mesh));
    Ok(Import {
        config: config(&imported, directory, &names),
        bundle: Bundle(bundle),
        certificate: certificate(host, settings)?,
        notes,
    })
}

/// The lines of /etc/hosts that are there for it, and the file without them.
pub(super) fn hosts(host: &Host, settings: &Settings, mesh: &str) -> Result<Split, ConfigError> {
    let text = files::read(host, Path::new(files::HOSTS))?.unwrap_or_default();
    let addresses = [
        discovery_address(mesh),
        settings.pilot_address(),
        settings.get("CA_ADDR").map(str::to_owned),
        Some(settings.istiod()),
    ];
    let names: Vec<String> = addresses
        .into_iter()
        .flatten()
        .map(|address| HostPort::host_of(&address).to_owned())
        .collect();
    Ok(hosts_lines::split(&text, &names))
}

/// The mesh.yaml of Istio's agent; the package makes an empty one, which means Istio's defaults.
pub(super) fn mesh(host: &Host) -> Result<String, ConfigError> {
    let text = files::read(host, Path::new(files::MESH))?.unwrap_or_default();
    Ok(if text.trim().is_empty() {
        "defaultConfig: {}\n".to_owned()
    } else {
        text
    })
}

/// The field as istioctl writes it; whether the file is good is `join`'s to say.
fn discovery_address(mesh: &str) -> Option<String> {
    let value = mesh
        .lines()
        .find_map(|line| line.trim().strip_prefix("discoveryAddress:"))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

/// cluster.env as it is, and after it what only sidecar.env had, and what has another default here.
fn cluster_env(host: &Host, settings: &Settings) -> Result<String, ConfigError> {
    let path = Path::new(CLUSTER_ENV);
    let mut text = files::read(host, path)?.ok_or_else(|| {
        ConfigError::new(
            path,
            "is missing: Istio's own agent was never told which mesh this VM is in, so there is nothing to import",
        )
    })?;
    // What means nothing in a bundle of ours is said by its note, and would be refused there.
    let is_of_cluster_env = |key: &str| !settings.is_only_in_sidecar_env(key);
    if settings
        .iter()
        .any(|(key, _)| is_of_cluster_env(key) && !keys::is_for_the_bundle(key))
    {
        let kept = settings
            .iter()
            .filter(|(key, _)| is_of_cluster_env(key) && keys::is_for_the_bundle(key));
        text = kept.map(|(key, value)| assignment(key, value)).collect();
    }
    let own = settings
        .iter()
        .filter(|(key, _)| settings.is_only_in_sidecar_env(key) && keys::is_for_the_bundle(key));
    let own: String = own.map(|(key, value)| assignment(key, value)).collect();
    let unset: String = ["ISTIO_INBOUND_PORTS", "ISTIO_SERVICE_CIDR"]
        .into_iter()
        .filter(|key| !settings.is_set(key))
        .map(|key| assignment(key, ""))
        .collect();
    for (why, lines) in [
        (format!("From {SIDECAR_ENV}."), own),
        ("Not set: not redirected, as before.".to_owned(), unset),
    ] {
        if !lines.is_empty() {
            let end = if text.is_empty() || text.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            text += &format!("{end}# {why}\n{lines}");
        }
    }
    Ok(text)
}

/// A line that any shell reads as this very value.
fn assignment(key: &str, value: &str) -> String {
    format!("{key}='{}'\n", value.replace('\'', r"'\''"))
}

/// The roots that Istio's agent verifies istiod with (pkg/istio-agent/agent.go, FindRootCAForXDS).
fn roots(host: &Host, settings: &Settings) -> Result<String, ConfigError> {
    let [_, given] = settings.certificate_folders();
    let first = Path::new(files::CERTIFICATES).join(files::ROOT);
    for path in [first.clone(), given.join(files::ROOT), files::FALLBACK_ROOT.into()] {
        if let Some(text) = files::read(host, &path)? {
            return Ok(text);
        }
    }
    Err(ConfigError::new(
        &first,
        "is missing: without it istiod can't be told from a stranger",
    ))
}

fn certificate(host: &Host, settings: &Settings) -> Result<Option<Certificate>, ConfigError> {
    for folder in settings.certificate_folders() {
        let key = files::read(host, &folder.join(files::KEY))?;
        let chain = files::read(host, &folder.join(files::CHAIN))?;
        if let (Some(key), Some(chain)) = (key, chain) {
            let key = PrivateKey::new(key);
            return Ok(Some(Certificate { key, chain }));
        }
    }
    Ok(None)
}

/// Names of the control plane that the operator's own lines have, and that no bundle may have without a word of the
/// configuration: those of outside the cluster.
fn outside(hosts: &str, domain: Option<&str>) -> Vec<String> {
    let content = |line: &'_ str| line.split('#').next().unwrap_or_default().to_owned();
    let words = hosts.lines().flat_map(|line| {
        let words = content(line);
        words
            .split_ascii_whitespace()
            .skip(1)
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let end = format!(".svc.{}", domain.unwrap_or("cluster.local"));
    let is_inside = |name: &str| name.ends_with(".svc") || name.ends_with(&end);
    let mut names: Vec<String> = words.filter(|name| !is_inside(name)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn config(imported: &ImportedConfig, directory: &Path, names: &[String]) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let tables = [
        ("network", network(imported, names)),
        (
            "control_plane",
            (!imported.addresses.is_empty()).then(|| {
                let addresses: Vec<String> = imported.addresses.iter().map(|address| text(address)).collect();
                format!("addresses = [{}]", addresses.join(", "))
            }),
        ),
        (
            "identity",
            imported
                .ttl
                .map(|ttl| format!("ttl = {}", text(&humantime::format_duration(ttl).to_string()))),
        ),
        ("intercept", imported.no_rules.then(|| "backend = \"none\"".to_owned())),
        ("envoy", envoy(imported)),
    ];
    let tables = tables.into_iter().filter_map(|(name, lines)| Some((name, lines?)));
    let tables: String = tables.map(|(name, lines)| format!("\n[{name}]\n{lines}\n")).collect();
    format!(
        "# Made by `istio-vm-agent import` of what Istio's own agent was told; all keys: istio-vm-agent.toml(5).\n\n\
         [join]\ndirectory = {{ path = {} }}\n{tables}",
        text(&directory.display().to_string())
    )
}

fn network(imported: &ImportedConfig, names: &[String]) -> Option<String> {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let name = imported.name.as_deref().map(|name| format!("name = {}", text(name)));
    let domain = imported.cluster_domain.as_deref();
    let domain = domain.map(|domain| format!("cluster_domain = {}", text(domain)));
    let names: Vec<String> = names.iter().map(|name| text(name)).collect();
    let names = (!names.is_empty()).then(|| format!("hosts_allow = [{}]", names.join(", ")));
    let lines: Vec<String> = [name, domain, names].into_iter().flatten().collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

fn envoy(imported: &ImportedConfig) -> Option<String> {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let lines: Vec<String> = [
        imported
            .binary
            .as_deref()
            .map(|binary| format!("binary = {}", text(binary))),
        imported
            .log_level
            .as_deref()
            .map(|level| format!("log_level = {}", text(level))),
        imported.concurrency.map(|threads| format!("concurrency = {threads}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}
