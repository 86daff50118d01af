//! Facts for tests.

use std::net::IpAddr;

use super::{ContainerState, ProbeState};

/// A container that runs, and of which nothing else is to be told.
pub(crate) fn running(address: Option<IpAddr>, healthcheck: ProbeState) -> ContainerState {
    ContainerState::Running {
        id: "c0ffee".to_owned(),
        restarts: 0,
        outdated: false,
        address,
        successor: None,
        trouble: None,
        exposed: Vec::new(),
        healthcheck,
    }
}
