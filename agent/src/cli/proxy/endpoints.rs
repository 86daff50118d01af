//! `proxy endpoints`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::{json, table};
use crate::cli::Output;
use crate::envoy::view::{ClusterStatus, HostStatus, views};

/// Endpoints by their address, cluster and health.
#[derive(Args, Debug, Default)]
pub(in crate::cli) struct Filter {
    /// Endpoints of this address.
    #[arg(long)]
    address: Option<String>,
    /// Endpoints of this port.
    #[arg(long)]
    port: Option<u16>,
    /// Endpoints of this cluster.
    #[arg(long)]
    cluster: Option<String>,
    /// Endpoints that istiod says are `healthy`, `unhealthy` or `draining`.
    #[arg(long)]
    status: Option<String>,
}

impl Filter {
    pub(super) fn shown(&self, statuses: &[Value], output: Output) -> Result<String> {
        let has_any = |status: &&Value| !self.chosen(&views(std::slice::from_ref(*status))).is_empty();
        match output {
            Output::Text => Ok(self.table(statuses)),
            Output::Json => json(&statuses.iter().filter(has_any).collect::<Vec<_>>()),
        }
    }

    pub(super) fn table(&self, statuses: &[Value]) -> String {
        let statuses: Vec<ClusterStatus> = views(statuses);
        let mut chosen = self.chosen(&statuses);
        chosen.sort_by_cached_key(|(cluster, host)| {
            let address = match &host.address.pipe {
                Some(_) => endpoint(host),
                None => host.address.host().to_owned(),
            };
            (address, host.address.socket_address.port_value, (*cluster).to_owned())
        });
        let rows = chosen.into_iter().map(|(cluster, host)| {
            let check = match host.health_status.failed_outlier_check {
                true => "FAILED",
                false => "OK",
            };
            [
                endpoint(host),
                host.health_status.eds_health_status.clone(),
                check.to_owned(),
                cluster.to_owned(),
            ]
            .into()
        });
        table(&["ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"], rows)
    }

    fn chosen<'a>(&self, statuses: &'a [ClusterStatus]) -> Vec<(&'a str, &'a HostStatus)> {
        let all = statuses.iter().flat_map(|cluster| {
            let hosts = cluster.host_statuses.iter();
            hosts.map(|host| (cluster.name.as_str(), host))
        });
        let is =
            |wanted: &Option<String>, it: &str| wanted.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(it));
        all.filter(|(cluster, host)| {
            is(&self.cluster, cluster)
                && is(&self.address, host.address.host())
                && is(&self.status, &host.health_status.eds_health_status)
                && self
                    .port
                    .is_none_or(|port| host.address.socket_address.port_value == port)
        })
        .collect()
    }
}

fn endpoint(host: &HostStatus) -> String {
    match &host.address.pipe {
        Some(pipe) => format!("unix://{}", pipe.path),
        None => host.endpoint(),
    }
}
