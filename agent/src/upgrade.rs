//! The way back from an upgrade of the package whose agent doesn't serve.
//!
//! ```text
//!   keep (preinst): the files of the version that serves, then the record
//!      │
//!      ▼            as well as the one before for 40 s
//!    Trial ─────────────────────────────────────────────► no record, no kept files
//!      │ ended for good, died 3 times, silent for 5 s, not ready within 60 s,
//!      │ or begun in a third boot
//!      ▼
//!   RollingBack: the kept files take their places, systemd reads the units again
//!      │
//!      ▼            another version is installed
//!   RolledBack ────────────────────────────────────────► Trial of that one, from the same kept files
//! ```
//!
//! Whoever judges is the version before (`istio-vm-agent-upgrade.service` runs its kept program), because the new one can't
//! be trusted to. It starts before the agent's unit whenever there is a record. A power cut finds a record that says how far
//! this has come, and each step may be taken twice.

mod former;
mod judge;
mod part;
mod record;
mod unit;
mod watch;

pub use part::UpgradePart;
pub use watch::{keep, watch};

#[cfg(test)]
mod tests;
