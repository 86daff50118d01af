//! PromQL, for each side and each source of figures.

use std::time::Duration;

use crate::migration::{Form, Metrics, Migration};

/// A side of the split.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Vm,
    Pods,
}

/// The three questions of one side.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Queries {
    pub(crate) requests: String,
    pub(crate) succeeded: String,
    pub(crate) p99: String,
}

/// Codes of gRPC that are not the server's fault; the empty one is no gRPC. HTTP's status hides all others.
const GRPC_GOOD: &str = "|0|1|3|5|6|7|9|10|11|16";

impl Queries {
    pub(crate) fn new(migration: &Migration, side: Side) -> Self {
        let window = seconds(migration.gate.window);
        match migration.gate.metrics {
            Metrics::Istio => of_istio(&host(migration, side), &window),
            Metrics::Envoy => of_envoy(&clusters(migration, side), &window),
        }
    }
}

fn of_istio(host: &str, window: &str) -> Queries {
    let side = format!("reporter=\"source\",destination_service=\"{host}\"");
    let good = format!("response_code!~\"5..|0\",grpc_response_status=~\"{GRPC_GOOD}\"");
    let duration = "istio_request_duration_milliseconds_bucket";
    Queries {
        requests: format!("sum(increase(istio_requests_total{{{side}}}[{window}]))"),
        succeeded: format!("sum(increase(istio_requests_total{{{side},{good}}}[{window}]))"),
        p99: format!("histogram_quantile(0.99, sum by (le) (rate({duration}{{{side}}}[{window}])))"),
    }
}

fn of_envoy(clusters: &str, window: &str) -> Queries {
    let side = format!("cluster_name=~\"{clusters}\"");
    let duration = "envoy_cluster_upstream_rq_time_bucket";
    Queries {
        requests: format!("sum(increase(envoy_cluster_grpc_total{{{side}}}[{window}]))"),
        succeeded: format!("sum(increase(envoy_cluster_grpc_success{{{side}}}[{window}]))"),
        p99: format!("histogram_quantile(0.99, sum by (le) (rate({duration}{{{side}}}[{window}])))"),
    }
}

fn host(migration: &Migration, side: Side) -> String {
    match side {
        Side::Vm => migration.host(),
        Side::Pods => migration.pods_host(),
    }
}

/// A regular expression for Envoy's names of a side's clusters, `outbound|PORT|SUBSET|HOST`.
fn clusters(migration: &Migration, side: Side) -> String {
    let subset = match (migration.form(), side) {
        (Form::Hosts, _) => "",
        (Form::Subsets, Side::Vm) => "vm",
        (Form::Subsets, Side::Pods) => "pods",
    };
    let host = host(migration, side).replace('.', "[.]");
    format!("outbound[|][0-9]+[|]{subset}[|]{host}")
}

fn seconds(window: Duration) -> String {
    format!("{}s", window.as_secs().max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    #[test]
    fn grpc_status_counts_and_not_the_code_of_http_alone() {
        let queries = Queries::new(&migration(HOSTS), Side::Pods);
        assert_eq!(
            queries.succeeded,
            "sum(increase(istio_requests_total{reporter=\"source\",\
             destination_service=\"catalog-pods.boutique.svc.cluster.local\",response_code!~\"5..|0\",\
             grpc_response_status=~\"|0|1|3|5|6|7|9|10|11|16\"}[60s]))"
        );
    }

    #[test]
    fn clusters_of_envoy_are_those_of_one_side() {
        let migration = migration(&format!("{HOSTS}gate = {{ metrics = 'envoy', window = '20s' }}"));
        let queries = Queries::new(&migration, Side::Vm);
        assert_eq!(
            queries.requests,
            "sum(increase(envoy_cluster_grpc_total{cluster_name=~\"outbound[|][0-9]+[|][|]\
             catalog[.]boutique[.]svc[.]cluster[.]local\"}[20s]))"
        );
    }
}
