//! The agent's own stream to istiod, by which an agent that takes over holds the VM's place until Envoy's stream is there.
//!
//! istiod takes a VM out of the mesh that has had no stream for 10 s. Each end of an agent ends Envoy's stream, and Envoy asks
//! again in its own time: several short-lived agents in a row had it miss all of them. This stream is there as soon as the
//! agent is, says who asks in the bytes in which Envoy said it last, and asks for the name table alone; health rides on it,
//! too. istiod knows a VM by its address, so that one more stream for a moment is no second proxy to it.
//!
//! Only an agent that finds the node of an Envoy does this: on a VM that boots, or has left the mesh, there is none.

use std::convert::Infallible;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result, ensure};
use bytes::Bytes;
use istio_api::frame::{Frame, XdsProtocol};
use istio_api::nds::NAME_TABLE;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::agent_requests::AgentRequests;
use super::node;
use super::peer::Peer;
use super::relay;
use super::reported_health::at_left_address;
use super::{Context, STEADY_AFTER};
use crate::facts::{Departure, EnvoyState};
use crate::host::{Host, Read};
use crate::supervise::reconnect;

/// Largest node that is kept, in bytes. Envoy's has its metadata and the names of its extensions, some 50 kB.
const MAX_NODE: usize = 1 << 20;
/// Time for which an agent that takes over is not ready for want of istiod. One that is well answers within some 100 ms.
const ISTIOD_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest time for which istiod is told that the VM has left an address.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time after which istiod has found out about a stream that is dead (keepalive.go, DefaultOption: 30 s, and 10 s for the
/// answer), and some more.
pub(super) const DEAD_STREAM_FOUND: Duration = Duration::from_secs(45);
/// The protocol whose messages are the same for every istiod.
const PROTOCOL: XdsProtocol = XdsProtocol::Delta;

impl Context {
    /// The node of the Envoy that was connected to an earlier agent. Blocks.
    pub(super) fn kept_node(&self) -> Option<Bytes> {
        let path = &self.options.node;
        let read = self.options.host.read_bytes(path, Read::max(MAX_NODE));
        read.unwrap_or_else(|error| {
            tracing::warn!("this VM has no stream to istiod before Envoy's: {error}");
            None
        })
        .map(Bytes::from)
    }

    /// Takes note of who Envoy says that it is.
    pub(super) fn note_node(&self, node: &Bytes) {
        self.node.send_if_modified(|kept| {
            let differs = kept.as_ref() != Some(node);
            if differs {
                *kept = Some(node.clone());
            }
            differs
        });
    }
}

/// Writes each node to `path`, until the VM leaves: no agent after this one is to hold its place.
pub(super) async fn write_nodes(
    host: Host,
    path: PathBuf,
    mut nodes: watch::Receiver<Option<Bytes>>,
    mut departure: watch::Receiver<Departure>,
) {
    loop {
        tokio::select! {
            biased;
            left = departure.wait_for(Departure::is_leaving) => match left {
                Ok(_) => break,
                // The agent ends, and the VM stays.
                Err(_) => return,
            },
            changed = nodes.changed() => if changed.is_err() {
                return;
            }
        }
        let Some(node) = nodes.borrow_and_update().clone() else {
            continue;
        };
        let file = path.clone();
        let written = host.blocking(move |host| {
            ensure!(node.len() <= MAX_NODE, "it is longer than {MAX_NODE} bytes");
            Ok(host.write_bytes(&file, &node, 0o600)?)
        });
        if let Err(error) = written.await {
            tracing::warn!("failed to keep Envoy's node for the next agent: {error:#}");
        }
    }
    if let Err(error) = host.remove(&path) {
        tracing::warn!("should this agent be killed, the next one holds this VM's place in the mesh: {error}");
    }
}

/// Holds the VM's place in the mesh until Envoy's own stream has reached istiod, Envoy is found dead, or istiod is to see that
/// the VM is gone.
pub(super) async fn hold(context: Arc<Context>, node: Bytes) {
    let (mut xds, mut envoy) = (context.report.subscribe(), context.inputs.envoy.clone());
    let overdue = async {
        sleep(ISTIOD_TIMEOUT).await;
        context.report.takes_over(false);
        pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        () = context.hung_up.cancelled() => {}
        _ = xds.wait_for(|state| state.connected_to.is_some()) => {}
        _ = envoy.wait_for(|state| matches!(state, EnvoyState::Down { .. } | EnvoyState::Fetching { .. })) => {}
        never = keep_open(&context, &node) => match never {},
        never = overdue => match never {},
    }
    context.report.takes_over(false);
}

/// Tells istiod that the VM of this node, which has left its address, is called there no more. The stream on which it was told
/// of that address may be dead without istiod's knowing: with the address its last packets are lost, too. The stream on which
/// this is told outlives that one: istiod takes a VM out at the end of the one that came last, and when there is no other
/// (istio/pilot/pkg/autoregistration, changeWorkloadEntryStateToDisconnected). Had it ended before, the address would stay in
/// the mesh, until istiod's own limit on the age of connections or for ever.
pub(super) async fn take_leave(context: &Context, node: &Bytes) {
    let told = async {
        let mut backoff = reconnect();
        loop {
            match say_gone(context, node).await {
                Ok(conversation) => return conversation,
                Err(error) => tracing::debug!("istiod is not told yet that the VM has left an address: {error:#}"),
            }
            backoff.wait().await;
        }
    };
    let leave = async {
        let Ok((mut istiod, mut agent)) = timeout(LEAVE_TIMEOUT, told).await else {
            return tracing::warn!("istiod was not told within {LEAVE_TIMEOUT:?} that this VM has left an address");
        };
        let stays = async {
            let mut backoff = reconnect();
            loop {
                while answer_next(context, &mut *istiod, &mut agent).await.is_ok() {}
                backoff.wait().await;
                if let Ok(again) = say_gone(context, node).await {
                    (istiod, agent) = again;
                }
            }
        };
        let _: Result<Infallible, _> = timeout(DEAD_STREAM_FOUND, stays).await;
    };
    let (mut membership, address) = (context.inputs.membership.clone(), node::address(node));
    tokio::select! {
        () = context.hung_up.cancelled() => {}
        // The VM has come back to it.
        _ = membership.wait_for(|now| now.instance_ips.first().copied() == address) => {}
        () = leave => {}
    }
}

/// A stream of its own on which istiod has been told, and has said something.
async fn say_gone(context: &Context, node: &Bytes) -> Result<(Box<dyn Peer>, AgentRequests)> {
    let selected = context.options.selector.current();
    let relay::Ready { connected, due } = relay::connect(context, selected, false, 0).await?;
    let mut agent = AgentRequests::new(PROTOCOL, true);
    let opening = agent.introduce(node.clone(), &at_left_address());
    let mut istiod = connected.open(PROTOCOL, opening, due, false);
    answer_next(context, &mut *istiod, &mut agent).await?;
    Ok((istiod, agent))
}

async fn answer_next(context: &Context, istiod: &mut dyn Peer, agent: &mut AgentRequests) -> Result<()> {
    let said = istiod.next().await.map_err(|disconnect| disconnect.error)?;
    istiod.send(answer(context, agent, said).await?);
    Ok(())
}

/// Keeps a stream of the VM open, with the newest word on its health.
pub(super) async fn keep_open(context: &Context, node: &Bytes) -> Infallible {
    let mut backoff = reconnect();
    let mut failures = 0;
    loop {
        let selected = context.options.selector.current();
        match relay::connect(context, selected.clone(), false, failures).await {
            Ok(relay::Ready { connected, due }) => {
                let mut agent = AgentRequests::new(PROTOCOL, true);
                let opening = agent.introduce(node.clone(), &context.inputs.probe.borrow().clone());
                let mut istiod = connected.open(PROTOCOL, opening, due, false);
                tracing::info!(address = istiod.address(), "holding this VM's place in the mesh");
                let opened = Instant::now();
                let end = converse(context, &mut *istiod, &mut agent).await;
                // istiod keeps the place of a VM that it lost for 10 s, less than the longest wait.
                if opened.elapsed() >= STEADY_AFTER {
                    backoff.reset();
                }
                tracing::debug!("the agent's own stream ended: {end:#}");
                failures = 0;
            }
            Err(error) => {
                context.options.selector.mark_unreachable(&selected, &error);
                failures += 1;
            }
        }
        context.report.takes_over(false);
        backoff.wait().await;
    }
}

/// Takes the name table and tells the application's health, until the stream ends with this reason.
async fn converse(context: &Context, istiod: &mut dyn Peer, agent: &mut AgentRequests) -> Error {
    let mut probe = context.inputs.probe.clone();
    loop {
        tokio::select! {
            response = istiod.next() => match response {
                Ok(frame) => match answer(context, agent, frame).await {
                    Ok(answer) => istiod.send(answer),
                    Err(error) => return error,
                },
                Err(disconnect) => return disconnect.error,
            },
            Ok(()) = probe.changed() => {
                let health = agent.health(&probe.borrow_and_update().clone());
                health.into_iter().for_each(|frame| istiod.send(frame));
            }
        }
    }
}

/// The answer to a response: of the name table, as nothing else was asked for.
async fn answer(context: &Context, agent: &mut AgentRequests, frame: Frame) -> Result<Frame> {
    let head = frame.response()?;
    ensure!(
        head.type_url == NAME_TABLE,
        "istiod sent {}, which nobody asked for",
        head.type_url
    );
    context.report.takes_over(false);
    let refused = context.take_names(PROTOCOL, frame).await.err();
    Ok(agent.answer_names(head.version, &head.nonce, refused))
}
