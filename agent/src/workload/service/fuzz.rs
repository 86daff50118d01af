//! Fuzz target: what systemd says of a service.

use super::unit::{Unit, UnitState};

/// `systemctl show` of the application's unit.
pub(crate) fn unit(text: &str) {
    let unit = Unit::parse(text);
    if let UnitState::Changes(words) | UnitState::Ended(Some(words)) = unit.state() {
        assert!(words.lines().count() <= 1, "it is told in one line");
    }
    let _ = unit.expect_startable("shop.service");
    assert!(!unit.is_after("") && !unit.stops_after(""));
}
