//! Network namespaces, which belong to threads.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Does `work` in the network namespace of that file, on a thread of its own.
pub fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            enter(namespace)?;
            work()
        });
        let panicked = |_| Err(anyhow!("panicked in namespace {}", namespace.display()));
        inside.join().unwrap_or_else(panicked)
    })
}

/// Moves this thread into the network namespace of that file.
pub fn enter(namespace: &Path) -> Result<()> {
    let file = File::open(namespace).with_context(|| format!("failed to open {}", namespace.display()))?;
    Ok(move_into_link_name_space(
        file.as_fd(),
        Some(LinkNameSpaceType::Network),
    )?)
}

/// Moves this thread into a new network namespace, which has nothing but a loopback that is down.
pub fn leave() -> Result<()> {
    #[expect(
        deprecated,
        reason = "unsafe for shared file descriptors only, which a network namespace isn't"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNET).context("needs root, for a network namespace")
}
