//! resolv.conf(5): who is asked what the mesh doesn't know. Read again whenever the file is another.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::{Host, Read};

/// A resolv.conf has some lines.
const MAX_BYTES: usize = 64 << 10;

/// What we use of the file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct ResolvConf {
    /// In order of preference.
    pub(super) servers: Vec<IpAddr>,
    /// Lower case, without the last dot.
    pub(super) search: Vec<String>,
}

/// Parses leniently, as the C library does: lines that mean nothing are passed over, the last `search` or
/// `domain` counts.
pub(super) fn parse(text: &str) -> ResolvConf {
    let mut conf = ResolvConf::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => match words.next().map(|word| (word, word.parse())) {
                Some((_, Ok(ip))) => conf.servers.push(ip),
                Some((word, Err(_))) => tracing::warn!("resolv.conf: passed over nameserver {word:?}"),
                None => {}
            },
            Some("search" | "domain") => {
                let domain = |word: &str| word.trim_end_matches('.').to_ascii_lowercase();
                conf.search = words.map(domain).filter(|domain| !domain.is_empty()).collect();
            }
            _ => {}
        }
    }
    conf
}

/// The file, as it is now.
#[derive(Debug)]
pub(super) struct Current {
    host: Host,
    path: PathBuf,
    /// Our own sockets: to ask them would be to ask ourselves.
    own: Vec<IpAddr>,
    last: Mutex<(Option<Version>, Arc<ResolvConf>)>,
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
        Self {
            host,
            path,
            own: own
                .iter()
                .filter(|address| address.port() == upstream_port)
                .map(SocketAddr::ip)
                .collect(),
            last: Mutex::default(),
        }
    }

    /// Costs a stat(2) when nothing changed. A file that is gone or unreadable leaves what it said last: it is
    /// being replaced.
    pub(super) fn get(&self) -> Arc<ResolvConf> {
        let version = self.version();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if version != last.0 {
            if let Ok(Some(text)) = self.host.read(&self.path, Read::max(MAX_BYTES).following_links()) {
                let mut conf = parse(&text);
                conf.servers.retain(|server| !self.own.contains(server));
                tracing::info!(servers = ?conf.servers, search = ?conf.search, "upstream DNS servers read");
                last.1 = Arc::new(conf);
            }
            last.0 = version;
        }
        Arc::clone(&last.1)
    }

    fn version(&self) -> Option<Version> {
        let meta = fs::metadata(self.host.real_path(&self.path)).ok()?;
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

    use proptest::prelude::*;

    use super::*;
    use crate::host::System;

    #[test]
    fn the_lines_that_count_are_read() {
        let text = "# x\nnameserver 169.254.169.254\nnameserver\tfd00::1 \nnameserver fe80::1%eth0\nnameserver\n\
                    domain a\nsearch C.Proj.internal. google.internal\noptions edns0\n";
        let conf = parse(text);
        let servers: [IpAddr; 2] = ["169.254.169.254".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(conf.servers, servers);
        assert_eq!(conf.search, ["c.proj.internal", "google.internal"]);
    }

    #[test]
    fn a_new_file_counts_at_once_and_a_missing_one_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let path = Path::new("/resolv.conf");
        let own = ["127.0.0.1:53".parse().unwrap(), "[::1]:15053".parse().unwrap()];
        let current = Current::new(host.clone(), path.to_owned(), &own, 53);
        assert_eq!(*current.get(), ResolvConf::default());
        host.write(
            path,
            "nameserver 10.0.0.1\nnameserver 127.0.0.1\nnameserver ::1\n",
            0o644,
            None,
        )
        .unwrap();
        let servers: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "::1".parse().unwrap()];
        assert_eq!(current.get().servers, servers);
        host.remove(path).unwrap();
        assert_eq!(current.get().servers, servers);
        host.write(path, "nameserver 10.0.0.2\n", 0o644, None).unwrap();
        assert_eq!(current.get().servers, ["10.0.0.2".parse::<IpAddr>().unwrap()]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
