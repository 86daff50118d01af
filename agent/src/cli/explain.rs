//! `explain`: why a call fails, told from the state of this VM: names, rules, Envoy's listeners, routes, clusters,
//! endpoints and certificates, policies, and the application.
//!
//! ```text
//! collect (asks the host, the agent and Envoy) → state → explain, pure → chain of steps → text, JSON
//! ```

mod access_log;
mod call;
mod cause;
mod chain;
mod collect;
mod connection;
mod conntrack;
#[cfg(any(test, fuzzing))]
mod fixtures;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod inbound;
mod name;
mod outbound;
mod proxy;
mod question;
mod rbac;
mod route;
mod route_match;
mod rules;
mod service_ports;
mod state;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod truth;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use self::call::Call;
use self::chain::{Chain, Level};
use self::question::Question;
use self::state::State;
use self::target::Target;
use super::{Outcome, Output, print, print_printable};
use crate::terminal::Paint;

/// Version of the JSON document: it changes when a key goes or means something else.
const VERSION: u32 = 1;

/// Options of `explain`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// HOST:PORT[/PATH] of a call of this VM; of a call to it :PORT, ADDRESS->:PORT, or
    /// ADDRESS:PORT->:PORT of a connection that is there.
    #[arg(
        allow_hyphen_values = true,
        required_unless_present = "last_error",
        conflicts_with = "last_error"
    )]
    target: Option<Target>,
    /// The last call that failed, by Envoy's access log in the journal, or in a file.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true)]
    last_error: Option<Option<PathBuf>>,
    /// User id of the calling program, for one that the rules know.
    #[arg(long, value_name = "UID")]
    uid: Option<u32>,
    /// Group id of the calling program; that of its user when it isn't given.
    #[arg(long, value_name = "GID", requires = "uid")]
    gid: Option<u32>,
    /// Identity of the caller of this VM, by which policies judge.
    #[arg(long, value_name = "SPIFFE_ID")]
    principal: Option<String>,
    /// Path of a request to this VM, by which policies judge.
    #[arg(long)]
    path: Option<String>,
    /// A header of the request, by which routes are chosen; :method is one, too. Where one is given, others are missing.
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = question::header)]
    headers: Vec<(String, String)>,
    /// The caller of this VM speaks no TLS.
    #[arg(long, conflicts_with = "principal")]
    plaintext: bool,
}

impl Options {
    async fn question(&self) -> Result<Question> {
        let error = match &self.last_error {
            None => None,
            Some(file) => Some(collect::last_error(file.as_deref()).await?),
        };
        let of_error = || error.as_ref().and_then(|error| error.target.clone());
        let Some(target) = self.target.clone().or_else(of_error) else {
            let line = error.map(|error| error.line).unwrap_or_default();
            bail!("the last failure doesn't tell which call it was; name one: {line}");
        };
        Ok(Question {
            target,
            owner: self.uid.map(|uid| (uid, self.gid.unwrap_or(uid))),
            principal: self.principal.clone(),
            path: self.path.clone(),
            headers: self.headers.clone(),
            plaintext: self.plaintext,
            error,
        })
    }
}

pub(super) async fn run(path: &Path, output: Output, options: &Options) -> Result<Outcome> {
    let question = options.question().await?;
    let state = collect::state(path, question)
        .await
        .context("failed to look at this VM")?;
    let chain = explain(&state);
    match output {
        Output::Json => print(&(serde_json::to_string_pretty(&document(&state, &chain))? + "\n"))?,
        Output::Text => print_printable(&text::render(&state.question.target, &chain, Paint::of_stdout()))?,
    };
    Ok(match chain.decision().map(|step| step.level) {
        Some(Level::Fault) => Outcome::Wrong,
        _ => Outcome::Fine,
    })
}

fn document(state: &State, chain: &Chain) -> serde_json::Value {
    json!({
        "version": VERSION,
        "target": state.question.target.to_string(),
        "decision": chain.decision(),
        "steps": chain.steps,
    })
}

/// Steps that the call meets, in its order. Pure: nobody is asked.
fn explain(state: &State) -> Chain {
    let mut chain = Chain::default();
    let error = state.question.error.as_ref();
    if let Some(error) = error {
        chain.note("access log", error.line.clone());
    }
    if proxy::nobody_serves(state, &mut chain) {
        return chain;
    }
    match &state.question.target {
        Target::Outbound { host, port, path } => outbound(state, host, *port, path.as_deref(), &mut chain),
        Target::Inbound { peer, peer_port, port } => {
            let of_both = peer.zip(*peer_port).map(SocketAddr::from);
            inbound(state, *peer, of_both, *port, &mut chain);
        }
    }
    // Envoy's own word counts where nothing on this VM says more.
    let is_known = chain.steps.iter().any(|step| step.level == Level::Fault);
    if let (Some(error), false) = (error, is_known) {
        let (cause, words) = error.cause();
        let remedy = "the row of this cause in /usr/share/doc/istio-vm-agent/docs/explain.md says what to look at: the fault is \
                      past, or on the other side";
        chain.fault(
            "access log",
            cause,
            format!("Envoy says {}: {words}", error.word()),
            remedy,
        );
    }
    chain
}

fn outbound(state: &State, host: &str, port: u16, path: Option<&str>, chain: &mut Chain) {
    let Some(address) = name::explain(state, host, chain) else {
        return;
    };
    if rules::lead_in(state) {
        // A user of this VM calls the application here as a neighbor does that speaks no TLS.
        let mut state = state.clone();
        state.question.plaintext = true;
        state.question.path = state.question.path.or_else(|| path.map(str::to_owned));
        return inbound(&state, Some(address), None, port, chain);
    }
    if rules::leave_to_application(state, address, port, chain) {
        inbound::served(state, port, address.is_loopback(), chain);
        return;
    }
    if address.is_loopback() {
        chain.note("rules", "no rule sends this call to Envoy: it stays on loopback");
        inbound::listening(state, port, true, chain);
        return;
    }
    let service = name::service(state.resolver.table.as_ref(), address);
    if !rules::explain(state, service.is_some(), chain) {
        return;
    }
    rules::firewall(state, chain);
    let Some(envoy) = proxy::explain(state, chain) else {
        return;
    };
    proxy::configuration(state, envoy, chain);
    let call = Call {
        host,
        address,
        port,
        path,
        headers: &state.question.headers,
        service,
    };
    outbound::explain(state, envoy, &call, chain);
}

fn inbound(state: &State, peer: Option<IpAddr>, connection: Option<SocketAddr>, port: u16, chain: &mut Chain) {
    if !rules::explain(state, true, chain) {
        return;
    }
    if let Some(connection) = connection {
        conntrack::explain(state, connection, port, chain);
    }
    rules::firewall(state, chain);
    let Some(envoy) = proxy::explain(state, chain) else {
        return;
    };
    proxy::configuration(state, envoy, chain);
    inbound::explain(state, envoy, peer, port, chain);
}
