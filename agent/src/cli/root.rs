//! Verbs that only root can bring to their end: whoever forgot `sudo` is told so at once, and nothing that isn't true.

use std::env::args_os;
use std::path::Path;

use anyhow::{Result, bail};
use nix::unistd::{AccessFlags, geteuid};

use crate::config::Config;
use crate::host::Host;

/// A need of a verb that is root's as a rule.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Need {
    /// Nothing, or less the more is denied.
    Nothing,
    /// The configuration, where there is one.
    Configuration,
    /// The configuration, and the word of an agent and of an Envoy that run.
    Agent,
    /// Changes of the host.
    Host,
}

/// Expects that this user has what a verb needs.
///
/// # Errors
/// When only root has it: then with the command line that has it.
pub(super) fn expect(need: Need, config: &Path) -> Result<()> {
    if geteuid().is_root() {
        return Ok(());
    }
    match denied(need, config) {
        None => Ok(()),
        Some(what) => bail!("needs root to {what}: {}", command()),
    }
}

/// Tells whether this user may not read the configuration, or not even see whether there is one.
pub(super) fn is_kept(config: &Path) -> bool {
    Host::system().is_denied(config, AccessFlags::R_OK)
}

/// The need that this user is denied, in words; `None` where nothing is in the way.
fn denied(need: Need, config: &Path) -> Option<String> {
    match need {
        Need::Nothing => return None,
        Need::Host => return Some("change this host".to_owned()),
        Need::Configuration | Need::Agent => {}
    }
    if is_kept(config) {
        return Some(format!("read {}", config.display()));
    }
    if need != Need::Agent {
        return None;
    }
    let host = Host::system();
    let paths = Config::paths_of(config).unwrap_or_default();
    let sockets = [paths.status_socket(), paths.admin_socket()];
    let kept = sockets
        .iter()
        .find(|socket| host.is_denied(socket, AccessFlags::W_OK))?;
    Some(format!("connect to {}", kept.display()))
}

/// The command line of this process as root's.
pub(super) fn command() -> String {
    let words = args_os().skip(1).map(|word| quoted(&word.to_string_lossy()));
    ["sudo istio-vm-agent".to_owned()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as a shell takes it for itself.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;

    use nix::unistd::{Uid, setfsuid};

    use super::*;

    /// Words for a user who is not the owner of what he needs; a mode of 0 keeps out whoever runs this but root.
    fn told(need: Need, config: &Path) -> Option<String> {
        let config = config.to_owned();
        let nobody = move || {
            if geteuid().is_root() {
                // Of this thread alone.
                setfsuid(Uid::from_raw(65534));
            }
            denied(need, &config)
        };
        std::thread::spawn(nobody).join().unwrap()
    }

    fn lock(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn path_of_root_s_directories_is_root_s() {
        let folder = tempfile::tempdir().unwrap();
        let (config, run) = (folder.path().join("config.toml"), folder.path().join("run"));
        lock(folder.path(), 0o755);
        fs::create_dir(&run).unwrap();
        lock(&run, 0o755);
        assert_eq!(told(Need::Agent, &config), None, "there is nothing");
        fs::write(&config, format!("[paths]\nrun = {run:?}\n")).unwrap();
        lock(&config, 0o644);
        assert_eq!(told(Need::Agent, &config), None, "no agent runs");

        let socket = run.join("status.sock");
        let _agent = UnixListener::bind(&socket).unwrap();
        lock(&socket, 0);
        let connect = format!("connect to {}", socket.display());
        assert_eq!(told(Need::Agent, &config), Some(connect));
        assert_eq!(told(Need::Configuration, &config), None);

        let read = Some(format!("read {}", config.display()));
        lock(&config, 0);
        assert_eq!(told(Need::Configuration, &config), read);
        lock(folder.path(), 0);
        assert_eq!(told(Need::Agent, &config), read, "the folder is root's");
        assert_eq!(told(Need::Nothing, &config), None);
        assert!(told(Need::Host, &config).is_some());
        lock(folder.path(), 0o755);
    }

    #[test]
    fn command_line_can_be_pasted() {
        assert_eq!(quoted("--wait=ready"), "--wait=ready");
        assert_eq!(quoted("->:3550"), "'->:3550'");
        assert_eq!(quoted("a'b"), r"'a'\''b'");
        assert_eq!(quoted(""), "''");
    }
}
