//! An upgrade of the package, while it can be taken back and after it was.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// An upgrade of the package. Published by `upgrade`.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Upgrade {
    /// Version of the package that served before.
    pub from: String,
    /// Version that was installed over it.
    pub to: String,
    /// State of the upgrade.
    pub state: UpgradeState,
    /// Begin of that state.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
    /// Reason why it is taken back; absent while it is on trial.
    pub reason: Option<String>,
}

/// State of an upgrade. One that has proven itself has none: nothing is kept of it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeState {
    /// The new version has not proven itself yet.
    Trial,
    /// The files of the version before are being put back.
    RollingBack,
    /// The version before serves again.
    RolledBack,
}
