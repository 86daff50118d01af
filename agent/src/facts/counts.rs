//! Counts of what happened since the agent started, where no state tells it. Each is one publisher's; a clone counts in
//! the same place.

use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Bounds of the buckets for an upstream's DNS answer, in seconds: Istio's (istio/pkg/dns/client/monitoring.go).
const DNS_BUCKETS: [f64; 6] = [0.001, 0.005, 0.01, 0.1, 1.0, 5.0];

/// All counts.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Counts of `dns`.
    pub dns: DnsCounts,
    /// Counts of `envoy`.
    pub envoy: EnvoyCounts,
    /// Counts of `health`.
    pub probe: ProbeCounts,
    /// Times that `intercept` put the rules right after something else had changed them.
    pub rule_repairs: Counter,
    /// Counts of `metrics`.
    pub scrapes: ScrapeCounts,
    /// Counts of `xds`.
    pub xds: XdsCounts,
}

/// Counts of the DNS server.
#[derive(Clone, Debug)]
pub struct DnsCounts {
    /// Queries.
    pub requests: Counter,
    /// Queries that were handed on.
    pub upstream_requests: Counter,
    /// Queries that were handed on, and that no server answered.
    pub upstream_failures: Counter,
    /// Queries that were answered by what the upstreams had said before.
    pub kept_answers: Counter,
    /// Time to an upstream's answer, or to the end of the wait for it, in seconds.
    pub upstream_seconds: Histogram,
}

impl Default for DnsCounts {
    fn default() -> Self {
        Self {
            requests: Counter::default(),
            upstream_requests: Counter::default(),
            upstream_failures: Counter::default(),
            kept_answers: Counter::default(),
            upstream_seconds: Histogram::new(DNS_BUCKETS),
        }
    }
}

/// Counts of Envoys.
#[derive(Clone, Debug, Default)]
pub struct EnvoyCounts {
    /// Starts of an Envoy after the first one, for one that died.
    pub restarts: Counter,
    /// Starts of an Envoy that was to take over from another.
    pub takeovers: Counter,
    /// 1 while Envoy is started at the slowest pace only, because it died too often.
    pub slowed: Gauge,
}

/// Counts of probes.
#[derive(Clone, Debug, Default)]
pub struct ProbeCounts {
    /// Good answers of the application.
    pub successes: Counter,
    /// Bad ones, and none.
    pub failures: Counter,
    /// The last one.
    pub last: watch::Sender<Option<LastProbe>>,
}

/// One answer of the application to a probe.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LastProbe {
    /// When it came, or was waited for in vain.
    #[serde(with = "humantime_serde")]
    pub at: SystemTime,
    /// The failure; absent for a good one.
    pub failure: Option<String>,
}

/// Counts of scrapes of the agent's page of metrics.
#[derive(Clone, Debug, Default)]
pub struct ScrapeCounts {
    /// Pages that were made.
    pub total: Counter,
    /// Envoy's part of the page.
    pub envoy: SourceCounts,
    /// The application's part of the page.
    pub application: SourceCounts,
}

/// Counts of one source of metrics.
#[derive(Clone, Debug, Default)]
pub struct SourceCounts {
    /// Pages on which something of it is missing.
    pub failures: Counter,
    /// Samples that were left out, because they would cost the scraper the page or have names of others.
    pub dropped: Counter,
    /// 1 when it was there whole the last time, 0 when not, -1 before the first.
    pub is_up: Gauge,
}

/// Sources that the last page of metrics lacked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MissingMetrics {
    /// The source that the page lacks, and why.
    pub reason: String,
    /// When the page was made.
    pub at: SystemTime,
}

/// Packets that met one rule of the agent's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RulePackets {
    /// Family of the table: `inet` or `bridge` of nftables, `ip` or `ip6` of iptables.
    pub family: String,
    /// Name of the chain.
    pub chain: String,
    /// The rule, as its backend writes it.
    pub rule: String,
    /// Packets since the rule was put in.
    pub packets: u64,
}

/// Counts of the relay.
#[derive(Clone, Debug, Default)]
pub struct XdsCounts {
    /// Attempts to reach istiod that failed.
    pub connection_failures: Counter,
    /// Streams of istiod's that ended.
    pub istiod_disconnections: Counter,
    /// Streams of Envoy's that ended.
    pub envoy_disconnections: Counter,
    /// Responses of istiod's.
    pub responses: Counter,
    /// Responses that Envoy refused.
    pub refusals: Counter,
}
