//! The state of a VM that is well, but for what Envoy has.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, UNIX_EPOCH};

use super::question::Question;
use super::state::{Agent, Envoy, Resolver, State, Vm};
use super::target::Target;
use crate::facts::{EnvoyState, InterceptState, NameInfo, NameTable, XdsState};
use crate::intercept::{Rules, Trace};

/// A VM that is well, and is asked about this call.
pub(super) fn well(target: &str) -> State {
    let target: Target = target.parse().expect("it is one");
    let servers = match target {
        Target::Inbound { .. } => vec![],
        Target::Outbound { .. } => vec![address("10.200.0.1")],
    };
    let way = match target {
        Target::Inbound { .. } => redirected(15006),
        Target::Outbound { .. } => redirected(15001),
    };
    let queries = servers.iter().map(|_| redirected(15053));
    State {
        now: UNIX_EPOCH + Duration::from_secs(1_795_720_000),
        question: Question {
            target,
            owner: None,
            principal: None,
            path: None,
            headers: vec![],
            plaintext: false,
            error: None,
        },
        agent: agent(),
        vm: Vm {
            addresses: vec![address("10.200.0.3")],
            namespace: "onlineboutique".to_owned(),
            inbound_ports: Some(vec![3550]),
            inbound_listener: None,
            published: BTreeMap::new(),
        },
        rules: Ok(Rules {
            any_in: true,
            backend: "nftables".to_owned(),
            difference: vec![],
            traces: queries.chain([way]).collect(),
        }),
        resolver: Resolver {
            captured: true,
            served: true,
            table: Some(names()),
            servers,
            ..Resolver::default()
        },
        connection: None,
        envoy: Ok(Envoy::default()),
        listening: vec!["[::]:3550".parse().expect("it is one")],
        closed: Ok(Default::default()),
        bridged: BTreeMap::new(),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("it is one")
}

fn redirected(port: u16) -> Trace {
    Trace {
        redirected: Some(port),
        exception: None,
        rules: vec![format!("ISTIO_REDIRECT: redirect to :{port}")],
    }
}

fn names() -> NameTable {
    let name = |name: &str, ip: &str| {
        let info = NameInfo {
            ips: vec![address(ip)],
            registry: "Kubernetes".to_owned(),
            shortname: name.to_owned(),
            namespace: "onlineboutique".to_owned(),
        };
        (format!("{name}.onlineboutique.svc.cluster.local"), info)
    };
    NameTable {
        names: [
            name("cartservice", "10.96.186.61"),
            name("productcatalogservice", "10.96.166.216"),
        ]
        .into(),
    }
}

fn agent() -> Agent {
    Agent {
        xds: XdsState {
            connected_to: Some("istiod:15012".to_owned()),
            ..XdsState::default()
        },
        envoy: EnvoyState::Ready {
            pid: 7,
            adopted: false,
            restarts: 0,
            successor: None,
        },
        interception: InterceptState::Active {
            backend: "nftables".to_owned(),
            rules: 41,
            open_bridge: None,
        },
        ..Agent::default()
    }
}
