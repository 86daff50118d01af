//! Envoy itself: that it runs, has a configuration, and took the last one. Pure.

use super::cause::Cause;
use super::chain::Chain;
use super::state::{Envoy, State};
use crate::facts::{EnvoyState, date};
use crate::intercept::Rules;

const ENVOY: &str = "envoy";
const REFUSED: &str = "Envoy refused an update, and serves the configuration before it: ";
const MEND: &str = "mend what the message names: an EnvoyFilter, or a version of Istio that this Envoy doesn't fit";

/// True when this VM is out of the mesh: no agent answers, no Envoy serves and no rules are known to be in.
pub(super) fn nobody_serves(state: &State, chain: &mut Chain) -> bool {
    let State {
        agent, envoy, rules, ..
    } = state;
    let are_out = rules.as_ref().map_or(true, Rules::are_out);
    let (Some(reason), true, true) = (&agent.silent, envoy.is_err(), are_out) else {
        return false;
    };
    chain.fault(
        "agent",
        Cause::AgentDown,
        format!("none answers ({reason}), and no Envoy serves: this VM is not in the mesh"),
        "`systemctl start istio-vm-agent`; where there is no configuration yet, `istio-vm-agent up`",
    );
    true
}

/// Envoy's state; `None` where Envoy does not serve.
pub(super) fn explain<'a>(state: &'a State, chain: &mut Chain) -> Option<&'a Envoy> {
    let envoy = match &state.envoy {
        Ok(envoy) => envoy,
        Err(reason) => {
            let of_agent = match &state.agent.envoy {
                EnvoyState::Down { reason } => Some(format!("it ended: {reason}")),
                EnvoyState::Fetching { progress } => Some(format!("its program is fetched: {progress}")),
                EnvoyState::Waiting => Some("the agent has not started it yet".to_owned()),
                _ => None,
            };
            // Envoy can't print a configuration with a type in it that it doesn't know, and a refused one is a part of it.
            if let (None, Some(nack)) = (&of_agent, state.agent.xds.nacks.first()) {
                chain.fault(ENVOY, Cause::Nack, format!("{REFUSED}{}", nack.message), MEND);
                return None;
            }
            chain.fault(
                ENVOY,
                Cause::EnvoyDown,
                format!("does not serve: {}", of_agent.as_ref().unwrap_or(reason)),
                match state.agent.silent {
                    Some(_) => "`systemctl restart istio-vm-agent`",
                    None => "the agent starts it again by itself: `journalctl -u istio-vm-agent` has its last errors",
                },
            );
            return None;
        }
    };
    if envoy.clusters.iter().all(|cluster| !cluster.name.contains('|')) {
        let why = state.agent.xds.last_error.as_deref();
        chain.fault(
            ENVOY,
            Cause::EnvoyUnconfigured,
            format!(
                "runs, and has no configuration from istiod: {}",
                why.unwrap_or("istiod has sent none yet")
            ),
            "`istio-vm-agent check` tries istiod",
        );
        return None;
    }
    if let EnvoyState::Draining { pid } = state.agent.envoy {
        chain.fault(
            ENVOY,
            Cause::EnvoyDraining,
            format!("(pid {pid}) is being emptied of connections, as the VM leaves the mesh"),
            "wait for the agent's end, and start it",
        );
    } else {
        chain.ok(
            ENVOY,
            format!(
                "serves {} listeners and {} clusters",
                envoy.listeners.len(),
                envoy.clusters.len()
            ),
        );
    }
    Some(envoy)
}

/// The step that says whether Envoy has istiod's newest configuration.
pub(super) fn configuration(state: &State, envoy: &Envoy, chain: &mut Chain) {
    let xds = &state.agent.xds;
    if let Some(refusal) = refusal(state, envoy, |_| true) {
        chain.suspect("istiod", Cause::Nack, format!("{REFUSED}{refusal}"), MEND);
    } else if let Some(snapshot) = &xds.snapshot {
        chain.note(
            "istiod",
            format!(
                "not reached: Envoy is served from what it accepted by {}",
                date(snapshot.written)
            ),
        );
    } else if state.agent.silent.is_some() {
        chain.note("istiod", "no agent answers: Envoy keeps the configuration that it has");
    } else if xds.connected_to.is_none() {
        let why = xds.last_error.as_deref().unwrap_or("not tried yet");
        chain.note(
            "istiod",
            format!("not reached, Envoy keeps its last configuration: {why}"),
        );
    } else {
        chain.ok("istiod", "Envoy took its last configuration");
    }
}

/// Envoy's words about a resource that it refused, as the agent or Envoy itself has them.
pub(super) fn refusal(state: &State, envoy: &Envoy, is_about: impl Fn(&str) -> bool) -> Option<String> {
    let nacks = state
        .agent
        .xds
        .nacks
        .iter()
        .map(|nack| format!("{}: {}", nack.kind, nack.message));
    let own = envoy.refused.iter().map(|(name, reason)| format!("{name}: {reason}"));
    nacks.chain(own).find(|message| is_about(message))
}

/// The step that says whether Envoy's own certificate is good, which mTLS needs either way.
pub(super) fn certificate(state: &State, envoy: &Envoy, chain: &mut Chain) {
    let of_vm = envoy.secrets.iter().find(|secret| secret.name == "default");
    let Some(certificate) = of_vm
        .filter(|it| it.state == "ACTIVE")
        .and_then(|it| it.certificates.first())
    else {
        chain.fault(
            "certificate",
            Cause::CertificateMissing,
            "Envoy has none, so it speaks no mTLS",
            "`istio-vm-agent status` says why the CA gave none",
        );
        return;
    };
    if certificate.not_after <= state.now {
        chain.fault(
            "certificate",
            Cause::CertificateExpired,
            format!("over since {}: every mTLS handshake fails", date(certificate.not_after)),
            "`istio-vm-agent check` says why the CA gives no new one",
        );
    } else if certificate.not_before > state.now {
        chain.fault(
            "certificate",
            Cause::Clock,
            format!(
                "valid from {} on, and this VM's clock says {}",
                date(certificate.not_before),
                date(state.now)
            ),
            "set the clock (`timedatectl set-ntp true`)",
        );
    } else {
        chain.ok("certificate", format!("valid until {}", date(certificate.not_after)));
    }
}
