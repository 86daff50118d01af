//! A container's secrets: copies in memory (/run), in a directory that the container has and no user of the VM gets into.
//!
//! A file of its own is put in the place of one that has changed, so the directory is mounted and not the files: a secret
//! that is replaced is seen by a container that runs.

use std::path::Path;

use anyhow::{Context, Result};

use crate::config::{ContainerConfig, PathsConfig};
use crate::host::{Host, Read};

/// The longest secret, in bytes (as Kubernetes has it).
const MAX_BYTES: usize = 1 << 20;

/// Puts the configured secrets into `directory`, and takes all others out.
pub(super) fn place(host: &Host, directory: &Path, config: &ContainerConfig) -> Result<()> {
    let Some(above) = directory.parent().filter(|_| !config.secrets.is_empty()) else {
        return Ok(());
    };
    host.make_directory(above, 0o700, None)
        .and_then(|()| host.make_directory(directory, 0o755, None))
        .context("failed to make the directory of the container's secrets")?;
    let mut names = Vec::new();
    for path in &config.secrets {
        let content = read(host, path).context("workload.container.secrets")?;
        let name = path.file_name().unwrap_or_default();
        host.write_bytes(&directory.join(name), &content, 0o444)
            .context("failed to give the container its secrets")?;
        names.push(name);
    }
    for name in host.names_in(directory)? {
        if !names.iter().any(|kept| **kept == *name) {
            host.remove(&directory.join(name))?;
        }
    }
    Ok(())
}

/// The content of a secret's file.
///
/// # Errors
/// When it is not there, can't be read, or others may open it.
pub(super) fn read(host: &Host, path: &Path) -> Result<Vec<u8>> {
    let how = Read::max(MAX_BYTES).following_links().private();
    let content = host.read_bytes(path, how)?;
    content.with_context(|| format!("{} is not there", path.display()))
}

/// Removes one container's secrets, and with the last ones what kept them.
pub(super) fn remove(host: &Host, paths: &PathsConfig, workload: &str) -> Result<()> {
    let removed = host.remove_directory(&paths.container_secrets(workload));
    removed.context("failed to remove the container's secrets")?;
    match host.names_in(&paths.secrets())?.is_empty() {
        true => remove_all(host, paths),
        false => Ok(()),
    }
}

/// Removes all secrets.
pub(super) fn remove_all(host: &Host, paths: &PathsConfig) -> Result<()> {
    host.remove_directory(&paths.secrets())
        .context("failed to remove the containers' secrets")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::System;

    #[test]
    fn secrets_are_kept_from_the_vms_users_and_follow_their_files() {
        let root = tempfile::tempdir().unwrap();
        let (host, paths) = (Host::new(root.path(), System), PathsConfig::default());
        let directory = paths.container_secrets("web");
        let config = |secrets: &str| -> ContainerConfig {
            toml::from_str(&format!("name = 'web'\nimage = 'web:1'\nsecrets = [{secrets}]\n")).unwrap()
        };
        let write = |name: &str, text: &[u8], mode: u32| {
            let path = root.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let mode = |path: &Path| host.real_path(path).metadata().unwrap().permissions().mode() & 0o7777;
        write("key", b"\xff1", 0o644);
        let exposed = format!("{:#}", place(&host, &directory, &config("'/key'")).unwrap_err());
        assert!(exposed.starts_with("workload.container.secrets: /key: "), "{exposed}");

        write("key", b"\xff1", 0o600);
        write("other", b"2", 0o600);
        place(&host, &directory, &config("'/key', '/other'")).unwrap();
        let there = |name: &str| std::fs::read(host.real_path(&directory.join(name))).ok();
        assert_eq!(
            (there("key"), there("other")),
            (Some(b"\xff1".to_vec()), Some(b"2".to_vec()))
        );
        assert_eq!(mode(&paths.secrets()), 0o700);
        assert_eq!(mode(&directory), 0o755);
        assert_eq!(mode(&directory.join("key")), 0o444);

        write("key", b"new", 0o600);
        place(&host, &directory, &config("'/key'")).unwrap();
        assert_eq!((there("key"), there("other")), (Some(b"new".to_vec()), None));
        let missing = format!("{:#}", place(&host, &directory, &config("'/nowhere'")).unwrap_err());
        assert_eq!(missing, "workload.container.secrets: /nowhere is not there");
        remove(&host, &paths, "web").unwrap();
        assert!(host.meta(&paths.secrets()).unwrap().is_none());
        assert_eq!(there("key"), None);
    }
}
