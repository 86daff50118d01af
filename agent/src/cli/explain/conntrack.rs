//! The connection that is asked about, as netfilter follows it: where its packets go, whatever rules there are by now.

use std::net::SocketAddr;

use super::cause::Cause;
use super::chain::Chain;
use super::connection::Connection;
use super::state::State;

const CONNTRACK: &str = "conntrack";

/// Where the connection goes that is asked about by both its ends.
pub(super) fn explain(state: &State, peer: SocketAddr, port: u16, chain: &mut Chain) {
    let connection = match &state.connection {
        None => return,
        Some(Err(reason)) => return chain.note(CONNTRACK, format!("not known: {reason}")),
        Some(Ok(None)) => {
            let words = "it is over, or none of its packets has come to this VM";
            return chain.note(CONNTRACK, format!("no connection of {peer} to port {port}: {words}"));
        }
        Some(Ok(Some(connection))) => connection,
    };
    let Connection {
        tcp,
        unreplied,
        answered_by,
    } = connection;
    if answered_by.port() != state.vm.inbound_listener() {
        return chain.fault(
            CONNTRACK,
            Cause::PastEnvoy,
            format!("{peer} is {tcp} and goes to {answered_by}, past Envoy, though a new connection would not"),
            "have the caller connect anew: it is one of before the rules, or of a moment without them",
        );
    }
    match unreplied {
        true => chain.note(
            CONNTRACK,
            format!(
                "{peer} is {tcp}: it is sent to Envoy's port {}, and nothing has answered",
                state.vm.inbound_listener()
            ),
        ),
        false => chain.ok(
            CONNTRACK,
            format!("{peer} is {tcp}, with Envoy's port {}", state.vm.inbound_listener()),
        ),
    }
}
