//! resolv.conf(5): who is asked what the mesh doesn't know. Read again whenever the file is another.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::facts::HostEvent;
use crate::host::{Host, ResolvConf};

/// Shortest time between two looks at the file, which each cost a stat(2). A watch of inotify(7) would have to follow every
/// link on the way to it, as systemd-resolved and resolvconf make them, and their replacement.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// The file, as it is now.
#[derive(Debug)]
pub(super) struct Current {
    host: Host,
    path: PathBuf,
    /// Our own sockets: to ask them would be to ask ourselves.
    own: Vec<IpAddr>,
    last: Mutex<Last>,
}

/// The file as it was at the last look.
#[derive(Debug, Default)]
struct Last {
    looked: Option<Instant>,
    version: Option<Version>,
    conf: Arc<ResolvConf>,
}

/// Another version of a file differs in one of these.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Version {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Current {
    /// `own`: of the addresses that we listen on, those that have the upstreams' port.
    pub(super) fn new(host: Host, path: PathBuf, own: &[SocketAddr], upstream_port: u16) -> Self {
        let own: Vec<IpAddr> = own
            .iter()
            .filter(|address| address.port() == upstream_port)
            .map(SocketAddr::ip)
            .collect();
        let mut conf = ResolvConf::default();
        conf.servers.retain(|server| !own.contains(&server.address));
        let last = Last {
            conf: Arc::new(conf),
            ..Last::default()
        };
        Self {
            host,
            path,
            own,
            last: Mutex::new(last),
        }
    }

    /// The file as it is, or was less than [`LOOK`] ago. A file that is gone or unreadable leaves what it said last: it
    /// is being replaced.
    pub(super) fn get(&self) -> Arc<ResolvConf> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if last.looked.is_none_or(|looked| now.duration_since(looked) >= LOOK) {
            last.looked = Some(now);
            let version = self.version();
            if version != last.version {
                if let Ok(Some(conf)) = self.host.resolv_conf(&self.path) {
                    last.conf = Arc::new(self.usable(conf));
                }
                last.version = version;
            }
        }
        Arc::clone(&last.conf)
    }

    /// Without the servers that are this one.
    fn usable(&self, mut conf: ResolvConf) -> ResolvConf {
        for word in &conf.unusable {
            tracing::warn!("resolv.conf: passed over nameserver {word:?}");
        }
        conf.servers.retain(|server| !self.own.contains(&server.address));
        let servers: Vec<IpAddr> = conf.servers.iter().map(|server| server.address).collect();
        tracing::info!(code = HostEvent::ResolversChanged.code(), ?servers, search = ?conf.search, "upstream DNS servers read");
        conf
    }

    fn version(&self) -> Option<Version> {
        let meta = self.host.target_meta(&self.path).ok()??;
        Some(Version {
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::host::System;

    #[tokio::test(start_paused = true)]
    async fn new_file_counts_at_the_next_look_and_a_missing_one_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let path = Path::new("/resolv.conf");
        let own = ["127.0.0.1:53".parse().unwrap(), "[::1]:15053".parse().unwrap()];
        let current = Current::new(host.clone(), path.to_owned(), &own, 53);
        assert!(current.get().servers.is_empty(), "it would ask itself");
        let look = || tokio::time::advance(LOOK);
        host.write(
            path,
            "nameserver 10.0.0.1\nnameserver 127.0.0.1\nnameserver ::1\nnameserver fe80::1%eth0\n",
            0o644,
            None,
        )
        .unwrap();
        let servers = || -> Vec<String> { current.get().servers.iter().map(|it| it.address.to_string()).collect() };
        assert!(servers().is_empty(), "a look at every query");
        look().await;
        assert_eq!(servers(), ["10.0.0.1", "::1", "fe80::1"]);
        host.remove(path).unwrap();
        look().await;
        assert_eq!(servers(), ["10.0.0.1", "::1", "fe80::1"]);
        host.write(path, "nameserver 10.0.0.2\n", 0o644, None).unwrap();
        look().await;
        assert_eq!(servers(), ["10.0.0.2"]);
    }
}
