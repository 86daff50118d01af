//! Leaving the mesh before anything of it ends: callers go elsewhere while the VM serves.
//!
//! istiod goes on sending callers to a VM for ten seconds after its stream has ended, so Envoy's drain alone would have
//! them meet a closed port. `facts::Departure` has the way out as a diagram.

use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::config::LONGEST_LEAVE;
use crate::facts::{Departure, Membership, XdsState};
use crate::supervise::Scope;

/// Time for istiod to take an unhealthy VM out: it writes the WorkloadEntry and pushes after 0.1 s, or up to 10 s where
/// the mesh changes all the time (PILOT_DEBOUNCE_MAX), which `HungUp` covers.
const TAKEN_OUT_WITHIN: Duration = Duration::from_secs(5);
/// Time after which istiod takes out a VM whose stream has ended (PILOT_WORKLOAD_ENTRY_GRACE_PERIOD).
const DISCONNECTED_GRACE: Duration = Duration::from_secs(10);
// A stop's time is reckoned with it.
const _: () = assert!(TAKEN_OUT_WITHIN.as_secs() + DISCONNECTED_GRACE.as_secs() == LONGEST_LEAVE.as_secs());
/// Time for Envoy to connect to an agent that has taken over, which it tries every second, and for istiod to answer.
const ISTIOD_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for an istiod that was lost a moment ago to be asked again, which may be a second later, and to answer.
const AGAIN_TIMEOUT: Duration = Duration::from_millis(1500);
/// Field of ProxyConfig by which istiod goes by the VM's word on its health (istio/pilot/pkg/autoregistration).
const READINESS_PROBE: &str = "readinessProbe";

/// The ways in which istiod can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Registration {
    /// True when the WorkloadEntry is istiod's own, which it removes.
    automatic: bool,
    /// True when istiod goes by what the VM says of its health.
    health_checked: bool,
}

impl Registration {
    pub(super) fn of(membership: &Membership) -> Self {
        Self {
            automatic: membership.auto_register_group().is_some(),
            health_checked: membership.proxy_config.0.contains_key(READINESS_PROBE),
        }
    }
}

/// The longest time that leaving takes.
pub(super) fn grace(propagation: Duration) -> Duration {
    LONGEST_LEAVE + propagation
}

/// Waits for the agent's drain, and then until callers have gone elsewhere, or `hastened` says that there is no time.
pub(super) async fn run(
    scope: Scope,
    registration: impl FnOnce() -> Registration,
    propagation: Duration,
    xds: watch::Receiver<XdsState>,
    mut hastened: watch::Receiver<bool>,
    departure: watch::Sender<Departure>,
) -> Result<()> {
    scope.ready();
    scope.draining().await;
    let started = Instant::now();
    let left = tokio::select! {
        biased;
        Ok(_) = hastened.wait_for(|hastened| *hastened) => Err("there is no time to wait for them".to_owned()),
        left = leave(registration(), propagation, xds, &departure) => left,
    };
    let took = started.elapsed();
    match &left {
        Ok(()) => tracing::info!(?took, "the mesh sends this VM nothing any more"),
        Err(reason) => tracing::warn!(?took, "callers are not told before Envoy is drained: {reason}"),
    }
    departure.send_replace(Departure::Over {
        unannounced: left.err(),
    });
    Ok(())
}

/// Has istiod take the VM out of the endpoints; the error is the reason for which it can't be told.
async fn leave(
    registration: Registration,
    propagation: Duration,
    mut xds: watch::Receiver<XdsState>,
    departure: &watch::Sender<Departure>,
) -> Result<(), String> {
    if !registration.automatic {
        return Err(
            "istiod does not register this VM (there is no auto-register group), and takes its word for nothing: delete \
             its WorkloadEntry before you stop the agent"
                .to_owned(),
        );
    }
    // An agent that has just taken over may be told to leave before Envoy has connected again.
    let is_asked = |state: &XdsState| state.connected_to.is_some() || state.last_error.is_some();
    let _ = timeout(ISTIOD_TIMEOUT, xds.wait_for(is_asked)).await;
    if xds.borrow().last_error.is_some() {
        let _ = timeout(AGAIN_TIMEOUT, xds.wait_for(|state| state.connected_to.is_some())).await;
    }
    if xds.borrow().connected_to.is_none() {
        return Err("istiod is not reached: callers may meet a closed port until it notices".to_owned());
    }
    if !is_taken_out(registration, &mut xds, departure).await {
        tracing::info!("closing the stream to istiod, which then takes this VM out within {DISCONNECTED_GRACE:?}");
        departure.send_replace(Departure::HungUp);
        sleep(DISCONNECTED_GRACE).await;
    }
    departure.send_replace(Departure::Propagating);
    sleep(propagation).await;
    Ok(())
}

/// Tells istiod that the VM is unhealthy; true once it is in no cluster that Envoy knows. Where Envoy knows no cluster of
/// the VM's own Service, because a Sidecar hides it, there is nothing to see, and istiod's word is good.
async fn is_taken_out(
    registration: Registration,
    xds: &mut watch::Receiver<XdsState>,
    departure: &watch::Sender<Departure>,
) -> bool {
    if !registration.health_checked {
        tracing::info!("this VM's WorkloadGroup has no probe, so istiod takes no word on its health");
        return false;
    }
    tracing::info!(clusters = ?xds.borrow().listed_in, "telling istiod that this VM leaves");
    departure.send_replace(Departure::Announced);
    // An agent that has just taken over has heard of no endpoints yet.
    let taken_out = xds.wait_for(|state| state.endpoints_heard && state.listed_in.is_empty());
    let _ = timeout(TAKEN_OUT_WITHIN, taken_out).await;
    let is_taken_out = xds.borrow().listed_in.is_empty();
    if !is_taken_out {
        let clusters = &xds.borrow().listed_in;
        tracing::warn!(
            ?clusters,
            "istiod still sends calls to this VM {TAKEN_OUT_WITHIN:?} after it said that it is unhealthy: check that istiod runs \
             with PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS, and that no other object has this VM as an endpoint"
        );
    }
    is_taken_out
}

#[cfg(test)]
mod tests;
