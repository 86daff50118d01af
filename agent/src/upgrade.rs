//! The way back from an upgrade of the package whose agent doesn't serve.
//!
//! ```text
//!   keep (preinst): the files of the version that serves, then the record
//!      │
//!      ▼            as well as the one before for 40 s
//!    Trial ─────────────────────────────────────────────► no record, no kept files
//!      │ the new program fails, or is begun in a third boot
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
//!
//! What counts against a version is what its program does, and nothing else:
//!
//! | evidence | unless |
//! |---|---|
//! | its agent died 3 times | |
//! | its agent said nothing for 5 s, or for 60 s where none served before | |
//! | its agent ended for good | the version before refuses this configuration, too |
//! | its agent was not ready within 60 s, where the one before was | the configuration is another than at the upgrade, the application is what isn't well, or the VM was booted since |
//!
//! An application that is not well is nobody's work but its own: another container that a new version makes is judged where it
//! is made, and its predecessor serves on.

mod former;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod judge;
mod part;
mod record;
mod unit;
mod watch;

pub use part::UpgradePart;
pub use watch::{keep, watch};

#[cfg(test)]
mod tests;
