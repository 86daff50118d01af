//! Resources that the VM may run out of: room on disks, memory, the agent's descriptors.
//!
//! Nobody here does anything about it. But what follows, a write that fails or a call that takes long, is told by others
//! in words that don't name the cause.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use tokio::time::interval;

use crate::config::PathsConfig;
use crate::facts::HostEvent;
use crate::host::{Host, Read};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(10);
/// Bytes that a disk has to have left: a certificate, a membership and a snapshot of a small mesh.
const MIN_FREE: u64 = 16 << 20;
/// Share of the last ten seconds, in percent, in which all programs waited for memory (PSI, `full avg10`).
const MAX_STALL: f64 = 10.0;
/// Share of the agent's table of descriptors that may be taken, in tenths.
const MAX_TENTHS: u64 = 9;
/// The kernel's account of waits for memory (Documentation/accounting/psi.rst); absent in kernels without it.
const PRESSURE: &str = "/proc/pressure/memory";
const DESCRIPTORS: &str = "/proc/self/fd";
/// Two lines.
const MAX_BYTES: usize = 4 << 10;

/// Tells of each shortage, when it begins and when it is over.
pub(super) async fn follow(host: Host, paths: PathsConfig) -> Infallible {
    let mut looks = interval(LOOK);
    let mut known = Vec::new();
    loop {
        looks.tick().await;
        let paths = paths.clone();
        let found = host.blocking(move |host| Ok(shortages(host, &paths))).await;
        known = tell(known, found.unwrap_or_default());
    }
}

type Shortage = (HostEvent, String);

/// Logs what has begun and what is over since `known`.
fn tell(known: Vec<Shortage>, found: Vec<Shortage>) -> Vec<Shortage> {
    let is_in = |list: &[Shortage], event: HostEvent| list.iter().any(|(other, _)| *other == event);
    for (event, what) in found.iter().filter(|(event, _)| !is_in(&known, *event)) {
        tracing::warn!(code = event.code(), "{what}");
    }
    for (event, _) in known.iter().filter(|(event, _)| !is_in(&found, *event)) {
        tracing::info!(code = event.code(), "{} is over", event.code());
    }
    found
}

fn shortages(host: &Host, paths: &PathsConfig) -> Vec<Shortage> {
    let full = [&paths.state, &paths.run].into_iter().find_map(|path| {
        let free = host.free_bytes(path).ok().filter(|free| *free < MIN_FREE)?;
        let free = free >> 10;
        Some(format!(
            "the file system of {} has {free} kB left: what the agent keeps for its next start grows old; make room",
            path.display()
        ))
    });
    let pressure = host.read(Path::new(PRESSURE), Read::max(MAX_BYTES)).ok().flatten();
    let stall = pressure
        .as_deref()
        .and_then(full_avg10)
        .filter(|share| *share >= MAX_STALL);
    let stall = stall.map(|share| {
        format!(
            "all programs of this VM waited for memory for {share} % of the last ten seconds: calls take longer for it"
        )
    });
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let held = match host.names_in(Path::new(DESCRIPTORS)) {
        Ok(names) => names.len() as u64,
        Err(error) => uncounted(&error, limit),
    };
    [
        (HostEvent::DiskFull, full),
        (HostEvent::MemoryPressure, stall),
        (HostEvent::DescriptorsShort, descriptors(held, limit)),
    ]
    .into_iter()
    .filter_map(|(event, what)| Some((event, what?)))
    .collect()
}

/// The number of descriptors that could not be counted: to count them takes one, which an agent that may not look has.
fn uncounted(error: &io::Error, limit: u64) -> u64 {
    match error.kind() {
        io::ErrorKind::PermissionDenied => 0,
        _ => limit,
    }
}

fn descriptors(held: u64, limit: u64) -> Option<String> {
    (held >= limit / 10 * MAX_TENTHS).then(|| {
        format!("the agent has {held} of the {limit} descriptors that it may have: whoever comes now waits; raise LimitNOFILE=")
    })
}

/// The number behind `avg10=` of the line `full`.
fn full_avg10(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let word = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;
    use crate::host::System;

    fn codes(found: &[Shortage]) -> Vec<&'static str> {
        found.iter().map(|(event, _)| event.code()).collect()
    }

    #[test]
    fn shortages_are_found_by_what_the_kernel_says() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let paths = PathsConfig::default();
        let psi = |full: &str| {
            let text = format!(
                "some avg10=99.00 avg60=0.00 avg300=0.00 total=1\nfull avg10={full} avg60=0.00 avg300=0.00 total=0\n"
            );
            std::fs::create_dir_all(root.path().join("proc/pressure")).unwrap();
            std::fs::write(root.path().join("proc/pressure/memory"), text).unwrap();
        };
        psi("9.99");
        assert_eq!(codes(&shortages(&host, &paths)), [""; 0]);
        psi("10.00");
        let stalled = shortages(&host, &paths);
        assert_eq!(codes(&stalled), ["memory-pressure"]);
        // Told once, and once that it is over.
        assert_eq!(tell(stalled.clone(), Vec::new()), []);
        assert_eq!(tell(Vec::new(), stalled.clone()), stalled);
    }

    #[test]
    fn descriptors_are_short_at_nine_tenths_of_the_limit() {
        assert_eq!(descriptors(899, 1000), None);
        assert!(descriptors(900, 1000).is_some_and(|text| text.contains("900 of the 1000")));
        assert_eq!(descriptors(5000, u64::MAX), None);
        // Of an agent that has none left to count with.
        let uncounted = |errno| uncounted(&io::Error::from(errno), 1000);
        assert_eq!((uncounted(Errno::EMFILE), uncounted(Errno::EACCES)), (1000, 0));
    }
}
