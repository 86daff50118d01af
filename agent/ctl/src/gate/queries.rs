//! PromQL, for each side and each source of figures.

use crate::migration::{Form, Metrics, Migration};

/// A side of the split.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    Vm,
    Pods,
}

/// A figure of one side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Figure {
    /// Calls that ended.
    Requests,
    /// Calls that succeeded, of those that ended.
    Succeeded,
    /// The 99th percentile, in milliseconds.
    P99,
}

const SIDES: [Side; 2] = [Side::Vm, Side::Pods];
const FIGURES: [Figure; 3] = [Figure::Requests, Figure::Succeeded, Figure::P99];

/// The label that names a figure among others in one answer.
pub(super) const LABEL: &str = "figure";

/// The value of [`LABEL`].
pub(super) fn name(side: Side, figure: Figure) -> String {
    format!("{side:?}{figure:?}")
}

/// One query for all figures of both sides: of queries that are asked one after the other each is of its own moment, and
/// their ratio is of none.
pub(super) fn all(migration: &Migration) -> String {
    let each = SIDES
        .into_iter()
        .flat_map(|side| FIGURES.map(|figure| one(migration, side, figure)));
    each.collect::<Vec<_>>().join(" or ")
}

/// The query for one figure.
pub(super) fn one(migration: &Migration, side: Side, figure: Figure) -> String {
    let window = format!("{}s", migration.gate.window.as_secs().max(1));
    let query = match migration.gate.metrics {
        Metrics::Istio => of_istio(&host(migration, side), &window, figure),
        Metrics::Envoy => of_envoy(&clusters(migration, side), &window, figure),
    };
    format!(
        "label_replace({query}, \"{LABEL}\", \"{}\", \"\", \"\")",
        name(side, figure)
    )
}

/// The query for the connections that are open at the VM, by the name of its calls.
pub(super) fn open_at_vm(migration: &Migration) -> String {
    let query = match migration.gate.metrics {
        Metrics::Istio => {
            let of_vm = format!("{{reporter=\"source\",destination_service=\"{}\"}}", migration.host());
            format!(
                "(sum(istio_tcp_connections_opened_total{of_vm}) - (sum(istio_tcp_connections_closed_total{of_vm}) or vector(0)))"
            )
        }
        Metrics::Envoy => format!(
            "sum(envoy_cluster_upstream_cx_active{{cluster_name=~\"{}\"}})",
            clusters(migration, Side::Vm)
        ),
    };
    let name = name(Side::Vm, Figure::Requests);
    format!("label_replace({query}, \"{LABEL}\", \"{name}\", \"\", \"\")")
}

/// Codes of gRPC that are not the server's fault; the empty one is no gRPC. HTTP's status hides all others. Calls that are
/// denied (7, 16; HTTP's 401, 403) count as failed: a policy that the pods lack, or have, is what a migration gets wrong.
const GRPC_GOOD: &str = "|0|1|3|5|6|9|10|11";
const HTTP_BAD: &str = "5..|0|401|403";

fn of_istio(host: &str, window: &str, figure: Figure) -> String {
    let side = format!("reporter=\"source\",destination_service=\"{host}\"");
    let good = format!("response_code!~\"{HTTP_BAD}\",grpc_response_status=~\"{GRPC_GOOD}\"");
    match figure {
        Figure::Requests => format!("sum(increase(istio_requests_total{{{side}}}[{window}]))"),
        Figure::Succeeded => format!("sum(increase(istio_requests_total{{{side},{good}}}[{window}]))"),
        Figure::P99 => p99("istio_request_duration_milliseconds_bucket", &side, window),
    }
}

fn of_envoy(clusters: &str, window: &str, figure: Figure) -> String {
    let side = format!("cluster_name=~\"{clusters}\"");
    match figure {
        Figure::Requests => format!("sum(increase(envoy_cluster_grpc_total{{{side}}}[{window}]))"),
        Figure::Succeeded => format!("sum(increase(envoy_cluster_grpc_success{{{side}}}[{window}]))"),
        Figure::P99 => p99("envoy_cluster_upstream_rq_time_bucket", &side, window),
    }
}

fn p99(buckets: &str, side: &str, window: &str) -> String {
    format!("histogram_quantile(0.99, sum by (le) (rate({buckets}{{{side}}}[{window}])))")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    #[test]
    fn grpc_status_counts_and_not_the_code_of_http_alone() {
        assert_eq!(
            one(&migration(HOSTS), Side::Pods, Figure::Succeeded),
            "label_replace(sum(increase(istio_requests_total{reporter=\"source\",\
             destination_service=\"catalog-pods.boutique.svc.cluster.local\",response_code!~\"5..|0|401|403\",\
             grpc_response_status=~\"|0|1|3|5|6|9|10|11\"}[60s])), \"figure\", \"PodsSucceeded\", \"\", \"\")"
        );
    }

    #[test]
    fn clusters_of_envoy_are_those_of_one_side() {
        let migration = migration(&format!("{HOSTS}gate = {{ metrics = 'envoy', window = '20s' }}"));
        assert_eq!(
            one(&migration, Side::Vm, Figure::Requests),
            "label_replace(sum(increase(envoy_cluster_grpc_total{cluster_name=~\"outbound[|][0-9]+[|][|]\
             catalog[.]boutique[.]svc[.]cluster[.]local\"}[20s])), \"figure\", \"VmRequests\", \"\", \"\")"
        );
    }

    #[test]
    fn connections_that_are_open_are_those_that_were_not_closed() {
        let query = open_at_vm(&migration(&format!("protocol = 'tcp'\n{HOSTS}")));
        let of_vm = "{reporter=\"source\",destination_service=\"catalog.boutique.svc.cluster.local\"}";
        let expected = format!(
            "label_replace((sum(istio_tcp_connections_opened_total{of_vm}) - \
             (sum(istio_tcp_connections_closed_total{of_vm}) or vector(0))), \"figure\", \"VmRequests\", \"\", \"\")"
        );
        assert_eq!(query, expected);
    }

    #[test]
    fn one_query_has_every_figure_of_both_sides() {
        let query = all(&migration(HOSTS));
        for (side, figure) in SIDES.into_iter().flat_map(|side| FIGURES.map(|figure| (side, figure))) {
            assert_eq!(
                query.matches(&format!("\"{}\"", name(side, figure))).count(),
                1,
                "{query}"
            );
        }
        assert_eq!(query.matches(" or label_replace(").count(), 5);
    }
}
