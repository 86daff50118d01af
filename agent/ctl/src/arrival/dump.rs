//! istiod's account of what it has given to one proxy, as JSON (`config_dump?proxyID=…&types=…`), and signs of a change
//! in it.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{calls, connections};
use crate::migration::{Migration, Protocol, Share};
use crate::objects::{self, Position};

/// The trace of a change in a proxy's configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Sign {
    /// The service's route has this name.
    Route(String),
    /// The service's route is nobody's but the mesh's own.
    NoRoute,
    /// The service's calls are split so: istiod names a route of the Gateway API after its object alone.
    Calls(Share),
    /// The service's connections are split so.
    Connections(Share),
    /// The service's connections go the mesh's own way.
    NoConnections,
    /// The subsets are there.
    Subsets,
    /// The subsets are gone.
    NoSubsets,
}

impl Sign {
    /// The sign that `position` has arrived.
    pub(crate) fn of(migration: &Migration, position: &Position) -> Self {
        match migration.protocol {
            Protocol::Http if migration.gateway_route.is_some() => Self::Calls(position.share),
            Protocol::Http => Self::Route(position.route_name()),
            Protocol::Tcp => Self::Connections(position.share),
        }
    }

    /// The sign that the split is gone.
    pub(crate) fn of_none(migration: &Migration) -> Self {
        match migration.protocol {
            // The mesh's own way is that of a split with nothing for the pods.
            Protocol::Http if migration.gateway_route.is_some() => Self::Calls(Share::NONE),
            Protocol::Http => Self::NoRoute,
            Protocol::Tcp => Self::NoConnections,
        }
    }

    /// The short name of the type of resource that shows it.
    pub(super) fn resource_type(&self) -> &'static str {
        match self {
            Self::Route(_) | Self::NoRoute | Self::Calls(_) => "rds",
            Self::Connections(_) | Self::NoConnections => "lds",
            Self::Subsets | Self::NoSubsets => "cds",
        }
    }

    /// True when the dump shows it. A proxy without any route to the service, such as a gateway, calls it by none.
    pub(super) fn is_in(&self, dump: &Value, migration: &Migration) -> Result<bool> {
        let configs = dump["configs"].as_array().context("istiod's answer has no `configs`")?;
        let routes = || calls::routes(configs, migration.host());
        let names = || routes().map(|route| route["name"].as_str().unwrap_or_default());
        let has_subsets = |subset: &String| {
            let names = configs.iter().filter_map(|cluster| cluster["name"].as_str());
            names.filter(|name| name.ends_with(subset)).count() > 0
        };
        Ok(match self {
            Self::Route(wanted) => names().all(|name| name == wanted),
            Self::NoRoute => names().all(|name| !name.starts_with(objects::MANAGER)),
            Self::Calls(share) => routes().all(|route| calls::is_split(route, migration, *share)),
            Self::Connections(share) => connections::are_split(configs, migration, *share),
            Self::NoConnections => !connections::has_split(configs, migration),
            Self::Subsets => objects::subset_clusters(migration).iter().all(has_subsets),
            Self::NoSubsets => !objects::subset_clusters(migration).iter().any(has_subsets),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::migration::tests::{HOSTS, migration};

    fn routes(name: &str) -> Value {
        let host = |host: &str, name: &str| json!({ "name": format!("{host}:3550"), "domains": [host, format!("{host}:3550")], "routes": [{ "name": name }] });
        json!({ "configs": [{ "name": "3550", "virtualHosts": [
            host("catalog.boutique.svc.cluster.local", name),
            host("catalog-pods.boutique.svc.cluster.local", "default"),
        ] }] })
    }

    #[test]
    fn route_of_the_wanted_change_alone_has_arrived() {
        let migration = migration(HOSTS);
        let wanted = Sign::Route("istio-vm-ctl-7".to_owned());
        assert!(wanted.is_in(&routes("istio-vm-ctl-7"), &migration).unwrap());
        assert!(!wanted.is_in(&routes("istio-vm-ctl-6"), &migration).unwrap());
        assert!(!wanted.is_in(&routes("default"), &migration).unwrap());
        assert!(!Sign::NoRoute.is_in(&routes("istio-vm-ctl-7"), &migration).unwrap());
        assert!(Sign::NoRoute.is_in(&routes("default"), &migration).unwrap());
    }

    #[test]
    fn subsets_have_arrived_when_both_are_there() {
        let migration = migration(HOSTS);
        let of = |subsets: &[&str]| {
            let name = |subset| json!({ "name": format!("outbound|3550|{subset}|catalog.boutique.svc.cluster.local") });
            json!({ "configs": subsets.iter().map(name).collect::<Vec<_>>() })
        };
        assert!(Sign::Subsets.is_in(&of(&["", "vm", "pods"]), &migration).unwrap());
        assert!(!Sign::Subsets.is_in(&of(&["", "vm"]), &migration).unwrap());
        assert!(!Sign::NoSubsets.is_in(&of(&["", "vm"]), &migration).unwrap());
        assert!(Sign::NoSubsets.is_in(&of(&[""]), &migration).unwrap());
    }

    #[test]
    fn answer_that_is_no_dump_is_an_error() {
        assert!(Sign::NoRoute.is_in(&json!({}), &migration(HOSTS)).is_err());
    }
}
