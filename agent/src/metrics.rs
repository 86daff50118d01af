//! The page of metrics on port 15020, `/metrics` and `/stats/prometheus`: the agent's own, Envoy's and the application's,
//! as Istio's agent merges them (istio/pilot/cmd/pilot-agent/status/server.go).
//!
//! The page is text of Prometheus (0.0.4) or OpenMetrics (1.0.0), as the scraper wants it, and whatever a source speaks is
//! put into that line by line: what is unsound is left out and counted, because one bad line would cost the scraper the
//! page, and so is what has a name of the mesh's own. What a source costs is bounded in time and size, and one page of each
//! format serves all who ask within two seconds.

mod exposition;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod own;
mod page;
mod part;
mod sample;
mod source;
mod targets;

pub use page::{Refresh, pages};
pub use part::MetricsPart;

#[cfg(test)]
mod tests;
