//! Envoy's readiness and load, parsed from its `/stats`. Pure.

use std::str::FromStr;

use crate::config::ports;

/// The stats that `Readiness` is made of, as the query's regex.
pub(super) const READINESS_FILTER: &str =
    "^(cluster_manager.cds|listener_manager.lds).update_success$|^server.state$|^listener_manager.workers_started$";
/// The stats that `Load` is made of.
pub(super) const LOAD_FILTER: &str = "downstream_(cx|rq)_active$";

/// The stats by which Istio's readiness probe judges Envoy (istio/pilot/cmd/pilot-agent/status/util/stats.go).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Readiness {
    /// The number of cluster updates that Envoy accepted.
    pub clusters: u64,
    /// The number of listener updates that Envoy accepted.
    pub listeners: u64,
    /// Envoy's `server.state`, of which 0 is LIVE; `None` before it has one.
    pub state: Option<u64>,
    /// True once Envoy's workers have started.
    pub workers: bool,
}

impl Readiness {
    /// True when Envoy serves the configuration that istiod gave it.
    pub fn is_ready(&self) -> bool {
        self.lacks().is_none()
    }

    /// A sentence's end about what Envoy lacks to serve; `None` when it serves.
    pub fn lacks(&self) -> Option<String> {
        let needs = [
            (self.clusters > 0, "clusters from istiod"),
            (self.listeners > 0, "listeners from istiod"),
            (self.state == Some(0), "the state LIVE"),
            (self.workers, "running workers"),
        ];
        let missing: Vec<_> = needs.iter().filter(|(has, _)| !has).map(|(_, what)| *what).collect();
        (!missing.is_empty()).then(|| format!("it lacks {}", missing.join(", ")))
    }

    pub(in crate::envoy) fn parse(text: &str) -> Self {
        let mut readiness = Self::default();
        for (name, value) in lines::<u64>(text) {
            match name {
                "cluster_manager.cds.update_success" => readiness.clusters = value,
                "listener_manager.lds.update_success" => readiness.listeners = value,
                "listener_manager.workers_started" => readiness.workers = value == 1,
                "server.state" => readiness.state = Some(value),
                _ => {}
            }
        }
        readiness
    }
}

/// The connections and requests that are under way in Envoy.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(in crate::envoy) struct Load {
    /// The number of connections of peers to this VM.
    pub(in crate::envoy) inbound_connections: u64,
    /// The number of requests in either direction that have no whole answer yet; plain TCP has no requests.
    pub(in crate::envoy) requests: u64,
}

impl Load {
    pub(in crate::envoy) fn parse(text: &str) -> Self {
        let inbound = format!("_{}.downstream_cx_active", ports::INBOUND);
        let mut load = Self::default();
        for (name, value) in lines::<u64>(text) {
            // A listener's workers are listed beside it, as `listener.ADDRESS.worker_N.…`.
            if name.starts_with("listener.") && name.ends_with(&inbound) {
                load.inbound_connections = load.inbound_connections.saturating_add(value);
            } else if is_of_mesh(name) && name.ends_with(".downstream_rq_active") {
                load.requests = load.requests.saturating_add(value);
            }
        }
        load
    }
}

/// False for the request stats of the admin interface and of the static listeners, which count the agent's own calls.
fn is_of_mesh(name: &str) -> bool {
    let own = ["http.admin.", "http.agent.", "http.stats."];
    name.starts_with("http.") && !own.iter().any(|prefix| name.starts_with(prefix))
}

/// The lines `name: value` whose value is of type `T`.
fn lines<T: FromStr>(text: &str) -> impl Iterator<Item = (&str, T)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(": ")?;
        Some((name, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn readiness_is_live_with_clusters_listeners_and_workers() {
        let text = "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_success: 2\n\
                    listener_manager.workers_started: 1\nserver.state: 0\n";
        assert!(Readiness::parse(text).is_ready());
        for line in text.lines() {
            assert!(!Readiness::parse(&text.replace(line, "")).is_ready(), "without {line}");
        }
        assert!(!Readiness::parse(&text.replace("state: 0", "state: 2")).is_ready());
        let lacks = Readiness::parse("server.state: 2\nlistener_manager.workers_started: 1\n").lacks();
        assert_eq!(
            lacks.unwrap(),
            "it lacks clusters from istiod, listeners from istiod, the state LIVE"
        );
    }

    #[test]
    fn load_counts_peers_connections_and_the_mesh_s_requests() {
        let text = "http.admin.downstream_rq_active: 1\nhttp.agent.downstream_rq_active: 1\n\
                    http.inbound_0.0.0.0_3550;.downstream_rq_active: 2\n\
                    http.outbound_0.0.0.0_80;.downstream_rq_active: 3\n\
                    listener.0.0.0.0_15001.downstream_cx_active: 9\nlistener.0.0.0.0_15006.downstream_cx_active: 4\n\
                    listener.0.0.0.0_15006.worker_0.downstream_cx_active: 4\n\
                    listener.admin.downstream_cx_active: 1\n";
        let load = Load {
            inbound_connections: 4,
            requests: 5,
        };
        assert_eq!(Load::parse(text), load);
    }

    proptest! {
        #[test]
        fn stats_never_make_the_parsers_panic(text in "(http\\.a|listener\\._15006)?\\.downstream_(rq|cx)_active: [0-9]{0,25}\n.*") {
            let _ = (Load::parse(&text), Readiness::parse(&text));
        }
    }
}
