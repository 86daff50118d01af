//! The rules that send a call to Envoy. Pure.

use std::net::IpAddr;

use super::cause::Cause;
use super::chain::Chain;
use super::inbound;
use super::state::State;
use super::target::Target;
use crate::facts::InterceptState;
use crate::intercept::{Exception, Rules, Trace};

const RULES: &str = "rules";
/// Lines of a difference that are shown.
const MOST_LINES: usize = 3;

/// True when the call gets to Envoy, as far as the rules go; `is_of_mesh` is true when it has to.
pub(super) fn explain(state: &State, is_of_mesh: bool, chain: &mut Chain) -> bool {
    let rules = match &state.rules {
        Ok(rules) => rules,
        Err(reason) => {
            chain.note(RULES, format!("not known: {reason}"));
            return true;
        }
    };
    if rules.backend == "none" {
        chain.note(
            RULES,
            "intercept.backend is none: whether calls get to Envoy is the operator's own rules' matter",
        );
        return true;
    }
    if !rules.difference.is_empty() {
        return amiss(state, rules, chain);
    }
    let Some(trace) = of_call(state) else {
        return true;
    };
    match (trace.redirected, &state.question.target) {
        (Some(port), _) => {
            chain.ok(
                RULES,
                format!("sent to Envoy's port {port} by {}: {}", rules.backend, last(trace)),
            );
            true
        }
        (None, Target::Inbound { port, .. }) => {
            past_inbound(state, *port, trace, chain);
            false
        }
        (None, Target::Outbound { .. }) => {
            past(trace, is_of_mesh, chain);
            false
        }
    }
}

/// True where the rules send a call of this VM to Envoy's listener for calls in: one of a user to the application here.
pub(super) fn lead_in(state: &State) -> bool {
    let is_of_vm = matches!(state.question.target, Target::Outbound { .. });
    is_of_vm && of_call(state).and_then(|trace| trace.redirected) == Some(state.vm.inbound_listener())
}

/// True where the rules leave a call of a user of this VM to the application here as it is: one of root's, of Envoy's, or of
/// `intercept.direct_uids`.
pub(super) fn leave_to_application(state: &State, address: IpAddr, port: u16, chain: &mut Chain) -> bool {
    let vm = &state.vm;
    let is_here = address.is_loopback() || vm.addresses.contains(&address);
    let is_captured =
        vm.published.contains_key(&port) || vm.inbound_ports.as_ref().is_some_and(|all| all.contains(&port));
    let is_in = state.rules.as_ref().is_ok_and(|rules| rules.difference.is_empty());
    let (Some((uid, _)), Some(trace)) = (state.question.owner, of_call(state)) else {
        return false;
    };
    let is_left = is_here && is_captured && is_in && trace.redirected.is_none();
    if is_left {
        chain.note(
            RULES,
            format!(
                "user {uid} calls the application as it is, past Envoy and the mesh's policy, as root does and \
                 intercept.direct_uids do ({})",
                last(trace)
            ),
        );
    }
    is_left
}

/// The way of the call itself, which comes after those of queries.
fn of_call(state: &State) -> Option<&Trace> {
    state.rules.as_ref().ok()?.traces.get(state.resolver.servers.len())
}

fn last(trace: &Trace) -> &str {
    trace.rules.last().map_or("no rule is for it", String::as_str)
}

/// The kernel has other rules than are wanted.
fn amiss(state: &State, rules: &Rules, chain: &mut Chain) -> bool {
    let agent = &state.agent;
    match &agent.interception {
        InterceptState::Open { reason } => {
            chain.note(
                RULES,
                format!("out while Envoy is down (intercept.on_envoy_down is open): {reason}"),
            );
            return true;
        }
        InterceptState::Failed { error } => {
            let remedy = "`istio-vm-agent check --only IVA601` tries them";
            chain.fault(RULES, Cause::RulesFailed, format!("can't be put in: {error}"), remedy);
            return false;
        }
        InterceptState::Absent | InterceptState::Active { .. } => {}
    }
    let shown = rules.difference.iter().take(MOST_LINES).map(|line| line.trim_end());
    let shown = shown.collect::<Vec<_>>().join(" │ ");
    match (rules.are_out(), &agent.silent) {
        (true, Some(reason)) => chain.fault(
            RULES,
            Cause::AgentDown,
            format!("none are in, and no agent answers ({reason}): calls go past Envoy"),
            "`systemctl start istio-vm-agent`",
        ),
        (true, None) => chain.fault(
            RULES,
            Cause::RulesMissing,
            format!("none are in, though {} are wanted", rules.difference.len()),
            "`istio-vm-agent status` says what they wait for; `systemctl restart istio-vm-agent` puts them in",
        ),
        (false, _) => chain.fault(
            RULES,
            Cause::RulesDiffer,
            format!("the kernel's are not those of this VM's membership (+ is missing, - is too much): {shown}"),
            "an agent that runs mends them within seconds: find who changes them (`nft monitor`), and see \
             `istio-vm-agent plan`",
        ),
    }
    false
}

fn past(trace: &Trace, is_of_mesh: bool, chain: &mut Chain) {
    let (cause, what, remedy) = match trace.exception {
        Some(Exception::Address) => (
            Cause::ExcludedAddress,
            "its address is excluded",
            "take it out of ISTIO_SERVICE_EXCLUDE_CIDR, or of the families that the mesh has not",
        ),
        Some(Exception::Own) => (
            Cause::OwnAddress,
            "its address is this VM's own",
            "take it off, if another is meant to have it: `ip -brief address` shows the interface (kube-proxy puts the \
             addresses of Services on kube-ipvs0, and is not to run beside the agent)",
        ),
        Some(Exception::Port) => (
            Cause::ExcludedPort,
            "its port is excluded",
            "take it out of ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        ),
        Some(Exception::Owner) => (
            Cause::ExcludedOwner,
            "its program's user or group is excluded",
            "see ISTIO_OUTBOUND_OWNER_GROUPS and ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE; user and group 1337 are Envoy's own",
        ),
        Some(Exception::Interface) => (
            Cause::ExcludedInterface,
            "its interface is excluded",
            "take it out of ISTIO_EXCLUDE_INTERFACES",
        ),
        None => (
            Cause::NotIncluded,
            "it is in no network that is captured",
            "add its network to ISTIO_SERVICE_CIDR, or set that to `*`",
        ),
    };
    let evidence = format!("it goes past Envoy: {what} ({})", last(trace));
    match is_of_mesh {
        true => chain.fault(RULES, cause, evidence, remedy),
        false => chain.note(
            RULES,
            format!("{evidence}; how it fares there is not the mesh's matter"),
        ),
    }
}

/// A port that no rule captures: a fault where istiod has callers use mTLS to it, else as it may be meant.
fn past_inbound(state: &State, port: u16, trace: &Trace, chain: &mut Chain) {
    let why = match (&trace.exception, &state.vm.inbound_ports) {
        (Some(Exception::Port), _) => "it is excluded (ISTIO_LOCAL_EXCLUDE_PORTS, or a port of sshd's)".to_owned(),
        (Some(_), _) => "a rule lets it pass".to_owned(),
        (None, Some(all)) => {
            let all: Vec<String> = all.iter().map(u16::to_string).collect();
            format!("captured are {}", all.join(", "))
        }
        (None, None) => "all ports are captured but those excluded".to_owned(),
    };
    let evidence = format!(
        "calls to port {port} go past Envoy, without mTLS and policy: {why} ({})",
        last(trace)
    );
    let is_known = state
        .envoy
        .as_ref()
        .is_ok_and(|envoy| inbound::knows(state, envoy, port));
    let remedy = format!("add {port} to the WorkloadGroup's ports, or to ISTIO_INBOUND_PORTS");
    match is_known {
        true => chain.fault(
            RULES,
            Cause::PortNotCaptured,
            format!("{evidence}; istiod has callers in the mesh use mTLS there, which fails"),
            remedy,
        ),
        false => chain.suspect(
            RULES,
            Cause::PortNotCaptured,
            format!("{evidence}; istiod knows no such port of this workload, so it may well be meant"),
            format!("nothing, for ssh and the like; for a port of the mesh: {remedy}"),
        ),
    }
}

/// The step that says whether a firewall of this VM keeps calls from Envoy's port.
pub(super) fn firewall(state: &State, chain: &mut Chain) {
    const FIREWALL: &str = "firewall";
    match &state.closed {
        Ok((closed, remedies)) => {
            if let Some(port) = closed.first() {
                let evidence = format!("a firewall of this VM drops what is redirected to Envoy's port {port}");
                let remedy = format!("`{}`", remedies.join("`, `"));
                chain.fault(FIREWALL, Cause::Firewall, evidence, remedy);
            }
        }
        Err(error) => chain.note(
            FIREWALL,
            format!("other programs' firewalls can't be looked at: {error}"),
        ),
    }
}
