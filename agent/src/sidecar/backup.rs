//! Takes its secrets and its lines of /etc/hosts away, and keeps them in one document, so that they can be put back.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::files;
use super::import;
use super::settings::Settings;
use super::user;
use crate::facts::Credentials;
use crate::host::{Host, Owner, Read};

/// The format that this agent writes, and the only one that it reads.
const VERSION: u32 = 1;
const MAX_BYTES: usize = 4 << 20;

/// The state of Istio's own agent before a switch.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Before {
    /// True when its unit started with the machine.
    pub enabled: bool,
    /// True when its unit was started.
    pub started: bool,
    /// The user's number and its group's, where a switch changes them.
    pub user: Option<(u32, u32)>,
}

/// The files and lines that a switch took away.
#[derive(Deserialize, Serialize)]
struct Backup {
    version: u32,
    files: Vec<File>,
    /// Lines of /etc/hosts.
    hosts: String,
    before: Before,
    /// True until the switch has come to its end.
    #[serde(default)]
    interrupted: bool,
}

#[derive(Deserialize, Serialize)]
struct File {
    path: PathBuf,
    mode: u32,
    uid: u32,
    gid: u32,
    text: String,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            version: VERSION,
            files: Vec::new(),
            hosts: String::new(),
            before: Before::default(),
            interrupted: false,
        }
    }
}

impl fmt::Debug for File {
    /// Without the text, which may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({})", self.path.display())
    }
}

/// Writes down how it stands, before anything of it is touched: whatever ends a switch half-way can then be undone.
/// An interrupted switch's document stays: it says how Istio's agent stood.
///
/// # Errors
/// When it can't be written.
pub fn remember(host: &Host, now: Before, store: &Path) -> Result<()> {
    let mut backup = load(host, store)?.unwrap_or_default();
    let Before { enabled, started, user } = &mut backup.before;
    *enabled |= now.enabled;
    *started |= now.started;
    *user = user.or(now.user);
    backup.interrupted = true;
    save(host, store, &backup)
}

/// True when a switch that `remember` was called for has not been `finished`.
///
/// # Errors
/// When the document can't be read.
pub fn is_interrupted(host: &Host, store: &Path) -> Result<bool> {
    Ok(load(host, store)?.is_some_and(|backup| backup.interrupted))
}

/// Writes down that the switch has come to its end.
///
/// # Errors
/// When it can't be written.
pub fn finished(host: &Host, store: &Path) -> Result<()> {
    let mut backup = load(host, store)?.unwrap_or_default();
    backup.interrupted = false;
    save(host, store, &backup)
}

/// Takes them away, having written them to `store` before; all that has been taken, by name, and what has been left and
/// why. What an earlier call kept stays in the document.
///
/// # Errors
/// When something can't be kept or removed. What was kept can be put back.
pub fn take_away(host: &Host, settings: &Settings, store: &Path) -> Result<Vec<String>> {
    let mut backup = load(host, store)?.unwrap_or_default();
    let hosts = import::hosts(host, settings, &import::mesh(host)?)?;
    let (mut taken, mut left) = (Vec::new(), Vec::new());
    let user = user::ids(host)?.map(|(uid, _)| uid);
    for path in secrets(settings) {
        let (text, meta) = match files::read_own(host, &path, user) {
            Ok(Some(found)) => found,
            Ok(None) => continue,
            // Its user can put there what it likes, and must not stop the switch with it.
            Err(error) => {
                left.push(format!("left as it is: {error}"));
                continue;
            }
        };
        backup.files.retain(|file: &File| file.path != path);
        taken.push(path.clone());
        backup.files.push(File {
            mode: narrowed(&path, meta.mode()),
            uid: meta.uid(),
            gid: meta.gid(),
            text,
            path,
        });
    }
    if !hosts.taken.is_empty() {
        backup.hosts.clone_from(&hosts.taken);
    }
    save(host, store, &backup)?;
    for path in &taken {
        host.remove_given(path)?;
    }
    for path in files::MADE {
        // No secret, and its user may have made a link of its folder.
        let _ = host.remove_given(Path::new(path));
    }
    if !hosts.taken.is_empty() {
        host.rewrite(Path::new(files::HOSTS), hosts.kept.as_bytes())?;
    }
    let files = backup.files.iter().map(|file| file.path.display().to_string());
    let lines = backup.hosts.lines().map(|line| format!("{}: {line}", files::HOSTS));
    Ok(files.chain(lines).chain(left).collect())
}

/// The state of Istio's own agent before the switch; `None` when nothing was written down.
///
/// # Errors
/// When the document can't be read.
pub fn before(host: &Host, store: &Path) -> Result<Option<Before>> {
    Ok(load(host, store)?.map(|backup| backup.before))
}

/// Puts back what `take_away` kept. A key and a chain that are `newer` take the place of those, which may be over.
///
/// # Errors
/// When the document or a file can't be read or written.
pub fn put_back(host: &Host, store: &Path, newer: Option<&Credentials>) -> Result<()> {
    let backup = load(host, store)?.unwrap_or_default();
    for File {
        path,
        mode,
        uid,
        gid,
        text,
    } in &backup.files
    {
        let newer = newer.and_then(|newer| match path.file_name()?.to_str()? {
            files::KEY => Some(newer.key.expose_pem()),
            files::CHAIN => Some(newer.chain_pem.as_str()),
            _ => None,
        });
        let owner = Owner { uid: *uid, gid: *gid };
        if let Some(directory) = path.parent()
            && host.meta(directory)?.is_none()
        {
            host.make_directory(directory, 0o755, None)?;
        }
        host.write_given(path, newer.unwrap_or(text), narrowed(path, *mode), owner)?;
    }
    let path = Path::new(files::HOSTS);
    let mut text = files::read(host, path)?.unwrap_or_default();
    let missing: String = backup
        .hosts
        .split_inclusive('\n')
        .filter(|line| !text.lines().any(|there| there == line.trim_end_matches('\n')))
        .collect();
    if !missing.is_empty() {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        host.rewrite(path, (text + &missing).as_bytes())?;
    }
    Ok(())
}

/// The mode that a file comes back with: no wider than it was, and a secret is its owner's alone.
fn narrowed(path: &Path, mode: u32) -> u32 {
    let is_secret = path == Path::new(files::TOKEN) || path.ends_with(files::KEY);
    mode & if is_secret { 0o600 } else { 0o644 }
}

/// Forgets what was kept.
pub fn remove_backup(host: &Host, store: &Path) -> Result<()> {
    Ok(host.remove(store)?)
}

/// Files that would let somebody join as this VM, and the roots beside them. What it was given by others, in a
/// folder of their own, is theirs.
fn secrets(settings: &Settings) -> Vec<PathBuf> {
    let [own, _] = settings.certificate_folders();
    let certificates = [files::KEY, files::CHAIN, files::ROOT].map(|name| own.join(name));
    [PathBuf::from(files::TOKEN)].into_iter().chain(certificates).collect()
}

fn load(host: &Host, store: &Path) -> Result<Option<Backup>> {
    let Some(text) = host.read(store, Read::max(MAX_BYTES))? else {
        return Ok(None);
    };
    // serde's own message may quote the value that it stumbles over.
    let backup: Backup = serde_json::from_str(&text).map_err(|error| {
        anyhow::anyhow!(
            "{} is damaged at line {} column {}",
            store.display(),
            error.line(),
            error.column()
        )
    })?;
    ensure!(
        backup.version == VERSION,
        "{} is of version {}, this agent reads {VERSION}",
        store.display(),
        backup.version
    );
    Ok(Some(backup))
}

fn save(host: &Host, store: &Path, backup: &Backup) -> Result<()> {
    if let Some(directory) = store.parent() {
        host.make_directory(directory, 0o700, None)?;
    }
    let text = serde_json::to_string_pretty(backup).context("failed to encode the backup")?;
    Ok(host.write(store, &text, 0o600, None)?)
}

#[cfg(test)]
mod tests;
