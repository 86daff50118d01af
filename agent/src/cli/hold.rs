//! `hold`: keeps the mesh's ports for those who serve on them, from the boot on and while they are away. Nobody else can
//! bind them then; who did would keep Envoy and the agent from starting.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::{Outcome, print};
use crate::config::ports;
use crate::host::ports::{give_to_systemd, hold_tcp, hold_udp, is_absent};

/// The user whose ports are held: the ports of a user can only be held by a process of that user.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Holder {
    /// Envoy's.
    Envoy,
    /// The agent's.
    Agent,
}

const OF_ENVOY: [u16; 5] = [
    ports::OUTBOUND,
    ports::INBOUND,
    ports::CONTAINER,
    ports::READINESS,
    ports::ENVOY_METRICS,
];

pub(super) fn run(holder: Holder) -> Result<Outcome> {
    let everywhere = |port| {
        [
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
            (Ipv6Addr::UNSPECIFIED, port).into(),
        ]
    };
    let loopback = |port| {
        [
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            (Ipv6Addr::LOCALHOST, port).into(),
        ]
    };
    let name = match holder {
        Holder::Envoy => "envoy",
        Holder::Agent => "agent",
    };
    let mut held = Vec::new();
    let mut failures = Vec::new();
    let mut take = |addresses: [SocketAddr; 2], hold: fn(SocketAddr) -> io::Result<OwnedFd>| {
        for address in addresses {
            match hold(address) {
                Ok(socket) => held.push(socket),
                Err(error) if is_absent(&error) => {}
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
    };
    match holder {
        Holder::Envoy => OF_ENVOY.into_iter().for_each(|port| take(everywhere(port), hold_tcp)),
        Holder::Agent => {
            take(everywhere(ports::STATUS), hold_tcp);
            take(loopback(ports::DNS), hold_tcp);
            // Where containers ask. A socket for datagrams can't be held there: connected to nobody it is loopback's.
            take(everywhere(ports::DNS), hold_tcp);
            take(loopback(ports::DNS), hold_udp);
        }
    }
    give_to_systemd(name, &held).context("failed to leave the ports with systemd")?;
    if !failures.is_empty() {
        // The others are held all the same. An agent of before has its sockets for DNS by itself.
        let failures = failures.join("; ");
        tracing::warn!("not all ports of the mesh can be held ({failures}): `ss -anp` tells who has them");
    }
    print("The ports are held.\n")
}
