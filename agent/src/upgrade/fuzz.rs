//! Fuzz targets: the record of an upgrade, and systemd's word on the agent that is judged.

use super::record::Record;
use super::unit::{self, Agent};
use crate::facts::date;
use crate::fuzz::is_kept;

/// The record in the state directory.
pub(crate) fn record(text: &str) {
    is_kept::<Record>(text);
    if let Ok(record) = serde_json::from_str::<Record>(text) {
        let _ = date(record.upgrade.since);
    }
}

/// `systemctl show` of the agent's unit.
pub(crate) fn unit(text: &str) {
    let seen = unit::parse(text);
    assert!(text.contains(&seen.says));
    assert!(seen.agent != Agent::Silent(0) && seen.agent != Agent::Waiting(0));
}
