//! envoy.admin.v3's word of how the hosts of clusters are.

use serde::{Deserialize, Serialize};

use super::{Address, number};

/// The answer of `/clusters?format=json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClusterStatuses {
    /// The clusters.
    pub cluster_statuses: Vec<ClusterStatus>,
}

/// envoy.admin.v3.ClusterStatus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// Name of the cluster.
    pub name: String,
    /// Hosts of the cluster.
    pub host_statuses: Vec<HostStatus>,
}

impl ClusterStatus {
    /// The sum of a stat of all hosts.
    pub fn sum(&self, stat: &str) -> u64 {
        let each = self.host_statuses.iter().map(|host| host.stat(stat));
        each.fold(0, u64::saturating_add)
    }
}

/// envoy.admin.v3.HostStatus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HostStatus {
    /// Address.
    pub address: Address,
    /// Stats.
    pub stats: Vec<Stat>,
    /// Health.
    pub health_status: HealthStatus,
}

impl HostStatus {
    /// `address:port`, or the path of a unix socket.
    pub fn endpoint(&self) -> String {
        let host = self.address.host();
        match (self.address.socket_address.port_value, host.contains(':')) {
            (0, _) => host.to_owned(),
            (port, true) => format!("[{host}]:{port}"),
            (port, false) => format!("{host}:{port}"),
        }
    }

    /// The value of a stat, 0 where there is none.
    pub fn stat(&self, name: &str) -> u64 {
        let found = self.stats.iter().find(|stat| stat.name == name);
        found.map_or(0, |stat| stat.value)
    }

    /// True where Envoy has begun connections, and none has had anything to carry.
    pub fn is_tried_in_vain(&self) -> bool {
        self.stat("cx_total") > 0 && self.stat("rq_total") == 0
    }
}

/// A number of a host.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Stat {
    /// Name.
    pub name: String,
    /// Value; absent for 0.
    #[serde(deserialize_with = "number")]
    pub value: u64,
}

/// envoy.admin.v3.HostHealthStatus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HealthStatus {
    /// istiod's word: `HEALTHY`, `UNHEALTHY`, `DRAINING`, …
    pub eds_health_status: String,
    /// True where Envoy has ejected the host.
    pub failed_outlier_check: bool,
    /// True where Envoy's own probe fails.
    pub failed_active_health_check: bool,
}
