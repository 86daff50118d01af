//! DNS as a part.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::PoisonError;
use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::BoxFuture;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dns;
use crate::dns::check;
use crate::dns::metrics::METRICS;
use crate::facts::{HostState, NameInfo, NameTable};
use crate::host::{Host, NameServer};
use crate::part::{
    Answer, Audience, Changes, Channels, CheckContext, Code, Context, Metric, Page, Part, Problems, Question, SHORT,
    Section, Site, State, Task, changes_of, running_standby, stop_standby, typed,
};

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The name servers that the VM's own queries go to.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
struct DnsState {
    /// True where the agent answers the VM's queries.
    captured: bool,
    /// Name servers, in their order.
    servers: Vec<String>,
}

const SECTION: State<DnsState> = State {
    key: "dns",
    title: "Name servers",
    live: |channels| DnsState {
        captured: channels.membership().dns_capture,
        servers: servers(&Host::system()),
    },
    offline: |site| DnsState {
        captured: false,
        servers: servers(&site.host),
    },
    lines: |state, _| vec![line(state)],
};

fn servers(host: &Host) -> Vec<String> {
    let conf = host
        .resolv_conf(Path::new(RESOLV_CONF))
        .ok()
        .flatten()
        .unwrap_or_default();
    let name = |server: &NameServer| match &server.zone {
        Some(zone) => format!("{}%{zone}", server.address),
        None => server.address.to_string(),
    };
    conf.servers.iter().map(name).collect()
}

fn line(state: &DnsState) -> String {
    let servers = match state.servers.as_slice() {
        [] => format!("NONE in {RESOLV_CONF}"),
        servers => servers.join(", "),
    };
    match state.captured {
        true => format!("{servers}; the mesh's names are answered on port 15053 before they are asked"),
        false => format!("{servers}, asked directly"),
    }
}

/// Where there are no containers, nobody asks on the addresses for them.
fn problems(taken: &Option<String>, machine: &HostState) -> Problems {
    let has_containers = machine.bridges.iter().any(|bridge| bridge.is_inner);
    Problems::default().amiss(Code::DnsPort, taken.clone().filter(|_| has_containers))
}

/// The name table as protojson (istio.networking.nds.v1.NameTable), as Istio's agent shows it; `{}` before the first one.
fn ndsz(names: Option<&NameTable>) -> Answer {
    let Some(names) = names else {
        return typed(StatusCode::NOT_FOUND, "application/json", "{}");
    };
    let entry = |info: &NameInfo| {
        let mut entry = json!({ "ips": info.ips, "registry": info.registry });
        for (key, value) in [("shortname", &info.shortname), ("namespace", &info.namespace)] {
            if !value.is_empty() {
                entry[key] = value.as_str().into();
            }
        }
        entry
    };
    let table: BTreeMap<&String, Value> = names.names.iter().map(|(name, info)| (name, entry(info))).collect();
    typed(
        StatusCode::OK,
        "application/json",
        json!({ "table": table }).to_string(),
    )
}

/// Answers the VM's DNS queries.
#[derive(Debug)]
pub struct DnsPart;

impl Part for DnsPart {
    fn name(&self) -> &'static str {
        "dns"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let channels = &context.channels;
        let kept = std::mem::take(&mut *context.sockets.lock().unwrap_or_else(PoisonError::into_inner));
        if !channels.membership().dns_capture {
            if let Err(error) = kept.release() {
                tracing::warn!("failed to have systemd let go of the DNS sockets: {error}");
            }
            return None;
        }
        let Site { host, config, units } = &context.site;
        let mut options = dns::Options::new(host.clone(), channels.refusals.clone());
        options.counts = channels.counts.dns.clone();
        options.problem = channels.dns_problem.clone();
        options.lender = Some(dns::Lender {
            socket: config.paths.dns_socket(),
            unit: units.dns.clone(),
        });
        let (membership, names) = (channels.membership.subscribe(), channels.names.subscribe());
        let machine = channels.host.subscribe();
        Some(Task::new(SHORT, |scope| {
            dns::run(scope, options, kept, membership, names, machine)
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.dns_problem), changes_of(&channels.host)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        problems(&context.channels.dns_problem.borrow(), &context.channels.host.borrow())
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    /// Istio's page of the name table.
    fn pages(&self) -> Vec<Page> {
        vec![Page::of_facts(
            "/debug/ndsz",
            |_| Audience::ThisHost,
            |channels, _| ndsz(channels.names.borrow().as_deref()),
        )]
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        check::questions(context)
    }

    /// An agent that has failed leaves the standby, so that names are answered until somebody takes the VM out.
    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        stop_standby(site, site.units.dns.as_ref())
    }

    fn traces<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        running_standby(site, site.units.dns.as_ref(), "answers DNS")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::HostBridge;

    #[test]
    fn name_servers_are_told_with_who_asks_them() {
        let mut state = DnsState {
            captured: false,
            servers: vec!["10.0.0.1".to_owned(), "fe80::1%eth0".to_owned()],
        };
        assert_eq!(line(&state), "10.0.0.1, fe80::1%eth0, asked directly");
        state.captured = true;
        assert!(line(&state).starts_with("10.0.0.1, fe80::1%eth0; the mesh's names"));
        assert_eq!(line(&DnsState::default()), "NONE in /etc/resolv.conf, asked directly");
    }
    #[test]
    fn port_that_somebody_has_is_a_problem_where_there_are_containers() {
        let taken = Some("0.0.0.0:15053".to_owned());
        let mut machine = HostState::default();
        assert_eq!(problems(&taken, &machine), Problems::default());
        machine.bridges = vec![HostBridge {
            interface: "docker0".to_owned(),
            addresses: Vec::new(),
            networks: Vec::new(),
            is_inner: true,
        }];
        assert_eq!(problems(&taken, &machine).texts(), (vec![], vec!["0.0.0.0:15053"]));
        assert_eq!(problems(&None, &machine), Problems::default());
    }
}
