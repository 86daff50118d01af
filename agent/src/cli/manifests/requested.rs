//! The options of `manifests` for what not everybody needs.

use std::net::IpAddr;

use clap::Args;

use crate::manifests::{Caller, EgressHost, Exposed, Gateway, Policies, Way};

/// The way on which a cluster that the VMs don't join reaches them.
#[derive(Args, Clone, Debug)]
pub(super) struct WayArguments {
    /// The gateway of the VMs' network, for --other-cluster in another one.
    #[arg(
        long,
        value_name = "IP[:PORT]",
        group = "way",
        requires = "other_cluster",
        conflicts_with = "addresses"
    )]
    gateway: Option<Gateway>,
    /// For --other-cluster where istiod reads the VMs' cluster too (a remote secret) and only the name is missing.
    #[arg(long, group = "way", requires = "other_cluster", conflicts_with_all = ["addresses", "gateway"])]
    remote_secret: bool,
}

impl WayArguments {
    pub(super) fn way(&self, addresses: Vec<IpAddr>) -> Way {
        match self.gateway {
            Some(gateway) => Way::Gateway(gateway),
            None if self.remote_secret => Way::Known,
            None => Way::Addresses(addresses),
        }
    }
}

/// Objects that are printed beside the VMs' own.
#[derive(Args, Clone, Debug)]
pub(super) struct RequestedArguments {
    /// Print too what exposes this: istiod to VMs, or services to other networks.
    #[arg(long, value_name = "WHAT", value_enum)]
    expose: Vec<Exposed>,
    /// Print a PeerAuthentication: no call to the VMs without the mesh's TLS.
    #[arg(long, conflicts_with = "other_cluster")]
    strict: bool,
    /// Print an AuthorizationPolicy: none but these service accounts call the VMs.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "other_cluster")]
    allow: Vec<Caller>,
    /// Print a Sidecar: the VMs are told of these hosts and of istiod's namespace alone, such as `./*`.
    #[arg(long, value_name = "NAMESPACE/HOST", conflicts_with = "other_cluster")]
    egress: Vec<EgressHost>,
    /// Print a ScrapeConfig for Prometheus' operator, with this address of a VM.
    #[arg(long, value_name = "IP", conflicts_with = "other_cluster")]
    scrape: Vec<IpAddr>,
}

impl RequestedArguments {
    /// Each once, in the order in which it was asked for.
    pub(super) fn exposed(&self) -> Vec<Exposed> {
        let mut exposed = self.expose.clone();
        exposed.dedup();
        exposed
    }

    pub(super) fn policies(&self) -> Policies {
        Policies {
            strict: self.strict,
            callers: self.allow.clone(),
            egress: self.egress.clone(),
        }
    }

    pub(super) fn scraped(&self) -> Vec<IpAddr> {
        self.scrape.clone()
    }
}
