//! Files that root trusts or keeps secret, and that others can write or read. Said and not refused: they were so before
//! anybody looked, and an upgrade of the agent must not take a VM out of its mesh over them.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, JoinConfig};
use crate::host::Host;

/// Permissions of group and others.
const OTHERS_WRITE: u32 = 0o022;
const OTHERS_READ: u32 = 0o044;

/// One file that is open to others, with the remedy.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Exposure {
    /// Whoever else can write it is as good as root on this VM, or decides which mesh it is in.
    Writable { problem: String, fix: String },
    /// Whoever else can read it can act as this VM.
    Readable { problem: String, fix: String },
}

impl fmt::Display for Exposure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Writable { problem, fix } | Self::Readable { problem, fix }) = self;
        write!(f, "{problem}: {fix}")
    }
}

/// Every file of the configuration's that is open to others; `path` is the configuration itself. What isn't there is
/// somebody else's to say.
pub(super) fn exposures(config: &Config, path: &Path, host: &Host) -> Vec<Exposure> {
    let (trusted, secret) = files(config, path);
    let writable = trusted.iter().filter_map(|path| writable(host, path));
    let readable = secret.iter().filter_map(|path| readable(host, path));
    writable.chain(readable).collect()
}

/// Those that only root may write, and those that nobody else may read.
fn files(config: &Config, path: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let mut trusted = vec![path.to_owned(), config.envoy.binary.clone().unwrap_or_default()];
    let mut secret = Vec::new();
    match &config.join {
        JoinConfig::Directory(directory) => secret.push(directory.path.join("istio-token")),
        JoinConfig::Kubernetes(kubernetes) => {
            trusted.extend(
                [&kubernetes.ca_file, &kubernetes.kubeconfig]
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
            secret.extend(
                [&kubernetes.token_file, &kubernetes.kubeconfig]
                    .into_iter()
                    .flatten()
                    .cloned(),
            );
        }
        JoinConfig::Https(https) => {
            trusted.extend(https.ca_file.clone());
            secret.extend(https.header_file.clone());
        }
        JoinConfig::Gke(_) => {}
    }
    let has_secrets = config.workload.container.as_ref().is_some_and(|it| !it.env.is_empty());
    secret.extend(has_secrets.then(|| path.to_owned()));
    trusted.retain(|path| path.is_absolute());
    (trusted, secret)
}

fn writable(host: &Host, path: &Path) -> Option<Exposure> {
    let meta = host.target_meta(path).ok()??;
    let place = path.display();
    let (problem, fix) = if meta.uid() != 0 {
        let problem = format!("{place} belongs to user {}, who can change it", meta.uid());
        (problem, format!("chown root {place}"))
    } else if meta.mode() & OTHERS_WRITE != 0 {
        let mode = meta.mode() & 0o7777;
        let problem = format!("{place} can be changed by others than root (mode {mode:04o})");
        (problem, format!("chmod go-w {place}"))
    } else {
        return None;
    };
    Some(Exposure::Writable { problem, fix })
}

fn readable(host: &Host, path: &Path) -> Option<Exposure> {
    let meta = host.target_meta(path).ok()??;
    let (place, mode) = (path.display(), meta.mode() & 0o7777);
    (mode & (OTHERS_READ | OTHERS_WRITE) != 0).then(|| Exposure::Readable {
        problem: format!("{place} holds a secret that others can read (mode {mode:04o})"),
        fix: format!("chmod 0600 {place}"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::*;
    use crate::host::System;

    #[test]
    fn what_others_can_change_or_read_is_named_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let text = "[join.kubernetes]\nserver = 'https://h'\nca_file = '/ca.pem'\ntoken_file = '/token'\n\
                    namespace = 'n'\nworkload_group = 'g'\n";
        let path = Path::new("/config.toml");
        let config = Config::parse(path, text).unwrap();
        let found = || exposures(&config, path, &host);
        assert_eq!(found(), []);
        for (file, mode) in [("/config.toml", 0o644), ("/ca.pem", 0o644), ("/token", 0o600)] {
            host.write(Path::new(file), "", mode, None).unwrap();
        }
        assert_eq!(found(), []);
        host.write(path, "", 0o664, None).unwrap();
        host.write(Path::new("/token"), "", 0o640, None).unwrap();
        chown(root.path().join("ca.pem"), Some(54_321), None).unwrap();
        let said: Vec<String> = found().iter().map(ToString::to_string).collect();
        let expected = [
            "/config.toml can be changed by others than root (mode 0664): chmod go-w /config.toml",
            "/ca.pem belongs to user 54321, who can change it: chown root /ca.pem",
            "/token holds a secret that others can read (mode 0640): chmod 0600 /token",
        ];
        assert_eq!(said, expected);
    }
}
