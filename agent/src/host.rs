//! The only door to the machine: files, commands, and reversible edits of both.
//!
//! Tests give it a directory as root and a scripted runner; production gives it `/` and real processes.

#![expect(clippy::disallowed_methods, reason = "what the rest does by the host, the host does")]

mod atomic;
mod blocking;
mod bridges;
pub mod change;
mod clock;
mod command;
mod descriptors;
mod fd_store;
mod fed;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fixtures;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod given;
mod kernel_changes;
mod lock;
pub(crate) mod machine;
mod name_table;
mod netlink;
pub(crate) mod network;
mod owner;
mod packet_filter;
pub mod ports;
pub(crate) mod proc;
mod read;
mod resolv_conf;
pub(crate) mod routes;
mod socket;
mod socket_owner;
mod sockets;
mod staged;
mod systemd;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::facts::HostBridge;

pub(crate) use blocking::blocking;
pub use clock::{ClockChange, ClockChanges};
pub use command::{CommandError, Invocation, Run, System};
pub use descriptors::{receive_descriptors, send_descriptors};
pub use fd_store::{FdStore, InheritedSockets};
pub use fed::Fed;
pub use kernel_changes::{KernelChanges, Watched};
pub use lock::{Lock, NetworkLock};
pub use machine::Machine;
pub use owner::Owner;
pub use packet_filter::{FilterFamily, FilterTable, PacketFilter};
pub use read::{Opened, Read, ReadError};
pub use resolv_conf::{NameServer, ResolvConf};
pub use socket::{Audience, Served, connections_of};
pub use socket_owner::{Protocol, socket_owner};
pub use staged::Staged;
pub use watch::Changes;

/// Write permission of group and others (inode(7)).
pub(crate) const OTHERS_WRITE: u32 = 0o022;

/// A handle on the VM: a file-system root and a command runner. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    runner: Arc<dyn Run>,
}

impl Host {
    /// A host whose files lie below `root`.
    pub fn new(root: impl Into<PathBuf>, runner: impl Run + 'static) -> Self {
        Self {
            root: root.into(),
            runner: Arc::new(runner),
        }
    }

    /// The machine that the process runs on.
    pub fn system() -> Self {
        Self::new("/", System)
    }

    /// The same host, on which no command is given longer than `limit`.
    pub fn hurried(&self, limit: Duration) -> Self {
        let runner = command::Hurried {
            runner: Arc::clone(&self.runner),
            limit,
        };
        Self::new(&self.root, runner)
    }

    /// Runs a short-lived command to completion; blocks.
    pub fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        self.runner.run(call)
    }

    /// The bridges of this machine.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn bridges(&self) -> io::Result<Vec<HostBridge>> {
        self.runner.bridges()
    }

    fn at(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
