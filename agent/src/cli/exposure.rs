//! Files that root trusts or keeps secret, and that others can write or read. Said and not refused: they were so before
//! anybody looked, and an upgrade of the agent must not take a VM out of its mesh over them.

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::{Config, DirectoryConfig, JoinConfig};
use crate::host::{Host, OTHERS_WRITE};

/// Permissions of group and others.
const OTHERS_READ: u32 = 0o044;
/// To get through a folder.
const OTHERS_PASS: u32 = 0o011;
/// Permissions of all that are in no group of the file's.
const ALL_WRITE: u32 = 0o002;
/// inode(7), S_ISVTX.
const STICKY: u32 = 0o1000;
/// Debian's group staff, which may write below /usr/local and is as good as root (Debian Policy, 9.1.2).
const STAFF: u32 = 50;

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
    writable.chain(readable).chain(open_bundle(config, host)).collect()
}

/// The bundle where everybody on the VM can change it: its folder, and each file in it. That a user of its own fills it, or a
/// group, may be meant.
fn open_bundle(config: &Config, host: &Host) -> Vec<Exposure> {
    let JoinConfig::Directory(DirectoryConfig { path: folder, .. }) = &config.join else {
        return Vec::new();
    };
    let names = host.names_in(folder).unwrap_or_default();
    let files = names.into_iter().map(|name| folder.join(name));
    std::iter::once(folder.clone())
        .chain(files)
        .filter_map(|path| open_to_all(host, &path))
        .collect()
}

fn open_to_all(host: &Host, path: &Path) -> Option<Exposure> {
    let mode = host.target_meta(path).ok()??.mode() & 0o7777;
    let place = path.display();
    (mode & ALL_WRITE != 0 && is_reachable(host, path)).then(|| Exposure::Writable {
        problem: format!("{place} says which mesh this VM is in, and every user can change it (mode {mode:04o})"),
        fix: format!("chmod o-w {place}"),
    })
}

/// The files that only root may write, and those that nobody else may read.
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
    let has_secrets = config.workloads.containers().any(|it| !it.env.is_empty());
    secret.extend(has_secrets.then(|| path.to_owned()));
    trusted.retain(|path| path.is_absolute());
    (trusted, secret)
}

/// The file, or the first folder above it, that others can change: whoever can write the folder puts another file there.
fn writable(host: &Host, path: &Path) -> Option<Exposure> {
    host.target_meta(path).ok()??;
    if !is_reachable(host, path) {
        return None;
    }
    let real = host.resolved(path);
    real.ancestors().find_map(|place| changeable(host, place, path))
}

fn changeable(host: &Host, place: &Path, path: &Path) -> Option<Exposure> {
    let meta = host.target_meta(place).ok()??;
    let of = match meta.is_dir() {
        true => format!(", which {} is below,", path.display()),
        false => String::new(),
    };
    // In such a directory, as /tmp, nobody moves or removes what is another's.
    let is_sticky = meta.is_dir() && meta.mode() & STICKY != 0;
    let others = match meta.is_dir() && meta.gid() == STAFF {
        true => ALL_WRITE,
        false => OTHERS_WRITE,
    };
    let place = place.display();
    let (problem, fix) = if meta.uid() != 0 {
        let problem = format!("{place}{of} belongs to user {}, who can change it", meta.uid());
        (problem, format!("chown root {place}"))
    } else if meta.mode() & others != 0 && !is_sticky {
        let mode = meta.mode() & 0o7777;
        let problem = format!("{place}{of} can be changed by others than root (mode {mode:04o})");
        (problem, format!("chmod go-w {place}"))
    } else {
        return None;
    };
    Some(Exposure::Writable { problem, fix })
}

fn readable(host: &Host, path: &Path) -> Option<Exposure> {
    let meta = host.target_meta(path).ok()??;
    let (place, mode) = (path.display(), meta.mode() & 0o7777);
    let is_open = mode & (OTHERS_READ | OTHERS_WRITE) != 0;
    (is_open && is_reachable(host, path)).then(|| Exposure::Readable {
        problem: format!("{place} holds a secret that others can read (mode {mode:04o})"),
        fix: format!("chmod 0600 {place}"),
    })
}

/// Tells whether others than root get to a file: a folder of root's above it, behind links, may let nobody else through.
fn is_reachable(host: &Host, path: &Path) -> bool {
    let real = host.resolved(path);
    let shuts = |folder: &Path| {
        let meta = host.target_meta(folder).ok().flatten();
        meta.is_some_and(|meta| meta.uid() == 0 && meta.mode() & OTHERS_PASS == 0)
    };
    !real.ancestors().skip(1).any(shuts)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;
    use crate::host::System;

    fn folder(mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        folder
    }

    #[test]
    fn secret_is_open_to_others_where_every_folder_above_it_is() {
        let root = folder(0o755);
        let host = Host::new(root.path(), System);
        let text = "[join]\ndirectory = { path = '/link' }\n";
        let path = Path::new("/config.toml");
        let config = Config::parse(path, text).unwrap();
        host.make_directory(Path::new("/a/bundle"), 0o755, None).unwrap();
        host.write(Path::new("/a/bundle/istio-token"), "", 0o644, None).unwrap();
        symlink(root.path().join("a/bundle"), root.path().join("link")).unwrap();
        let found = |above: u32, folder: u32| {
            for (path, mode) in [("a", above), ("a/bundle", folder)] {
                set_permissions(root.path().join(path), Permissions::from_mode(mode)).unwrap();
            }
            exposures(&config, path, &host).len()
        };
        assert_eq!(found(0o755, 0o755), 1);
        assert_eq!(found(0o755, 0o711), 1);
        assert_eq!(found(0o755, 0o750), 1);
        assert_eq!(found(0o755, 0o700), 0);
        assert_eq!(found(0o700, 0o755), 0);
        // A folder of somebody else's lets that one through.
        chown(root.path().join("a"), Some(54_321), None).unwrap();
        assert_eq!(found(0o700, 0o755), 1);
    }

    #[test]
    fn folder_in_which_others_can_put_another_file_is_named() {
        let root = folder(0o755);
        let host = Host::new(root.path(), System);
        let path = Path::new("/etc/config.toml");
        let config = Config::parse(path, "[join]\ndirectory = { path = '/b' }\n").unwrap();
        host.make_directory(Path::new("/etc"), 0o755, None).unwrap();
        host.write(path, "", 0o600, None).unwrap();
        let found = |mode| {
            set_permissions(root.path().join("etc"), Permissions::from_mode(mode)).unwrap();
            let found = exposures(&config, path, &host);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let said =
            "/etc, which /etc/config.toml is below, can be changed by others than root (mode 0777): chmod go-w /etc";
        assert_eq!(found(0o777), [said]);
        assert_eq!(found(0o1777), [""; 0]);
        assert_eq!(found(0o755), [""; 0]);
        assert_eq!(found(0o775).len(), 1);
        chown(root.path().join("etc"), None, Some(STAFF)).unwrap();
        assert_eq!(found(0o775), [""; 0]);
        assert_eq!(found(0o777).len(), 1);
    }

    #[test]
    fn bundle_that_every_user_can_change_is_named_and_one_that_a_user_fills_is_not() {
        let root = folder(0o755);
        let host = Host::new(root.path(), System);
        let path = Path::new("/config.toml");
        let config = Config::parse(path, "[join]\ndirectory = { path = '/b' }\n").unwrap();
        host.make_directory(Path::new("/b"), 0o755, None).unwrap();
        chown(root.path().join("b"), Some(54_321), None).unwrap();
        let found = |folder: u32, file: u32| {
            host.write(Path::new("/b/hosts"), "", file, None).unwrap();
            set_permissions(root.path().join("b"), Permissions::from_mode(folder)).unwrap();
            let found = exposures(&config, path, &host);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found(0o775, 0o664), [""; 0]);
        let said = "says which mesh this VM is in, and every user can change it (mode";
        assert_eq!(found(0o777, 0o664), [format!("/b {said} 0777): chmod o-w /b")]);
        assert_eq!(
            found(0o755, 0o666),
            [format!("/b/hosts {said} 0666): chmod o-w /b/hosts")]
        );
    }

    #[test]
    fn file_that_others_can_change_or_read_is_named_with_the_remedy() {
        let root = folder(0o755);
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
