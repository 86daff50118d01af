//! The /etc of a host in a namespace: what programs need of this machine's, with hosts and resolv.conf of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::output_of;

/// /etc/hosts as a host starts with it.
pub const HOSTS: &str = "# made by the operator\n127.0.0.1 localhost\n::1 localhost ip6-localhost\n";
const RESOLV_CONF: &str = "nameserver 10.200.0.2\noptions timeout:1 attempts:1\n";

/// Users, names, which iptables is iptables; all of /etc would take seconds.
const NEEDED: [&str; 12] = [
    "alternatives",
    "ethertypes",
    "group",
    "host.conf",
    "iproute2",
    "ld.so.cache",
    "localtime",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
    "shadow",
];

/// An /etc that belongs to one host.
#[derive(Debug)]
pub struct PrivateEtc;

impl PrivateEtc {
    /// Makes it at `folder`.
    pub(crate) fn create(folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let present = NEEDED
            .map(|name| Path::new("/etc").join(name))
            .into_iter()
            .filter(|path| path.exists());
        let mut copy = Command::new("cp");
        copy.arg("--archive").args(present).arg(folder);
        output_of(copy)?;
        write_names(folder)
    }

    /// Makes the files that `ip netns exec` mounts over /etc.
    pub(crate) fn create_for_ip_netns(namespace: &str) -> Result<()> {
        let folder = Path::new("/etc/netns").join(namespace);
        fs::create_dir_all(&folder)?;
        write_names(&folder)
    }
}

fn write_names(folder: &Path) -> Result<()> {
    for (name, text) in [("hosts", HOSTS), ("resolv.conf", RESOLV_CONF)] {
        let path = folder.join(name);
        // resolv.conf may be a symbolic link out of the copy.
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(())
}
