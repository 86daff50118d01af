//! The options of the bootstrap.

use std::path::PathBuf;

use crate::config::PortMapping;

/// The part of the bootstrap that is the machine's and not the mesh's.
#[derive(Clone, Debug, PartialEq)]
pub struct BootstrapOptions {
    /// The unix socket on which the agent serves xDS.
    pub xds_socket: PathBuf,
    /// The unix socket on which the agent serves SDS.
    pub sds_socket: PathBuf,
    /// The unix socket on which Envoy serves its admin interface, and which only its user and root may open.
    pub admin_socket: PathBuf,
    /// The TCP port of the loopback address that shows the admin interface too; `None`: none.
    pub admin_port: Option<u16>,
    /// The ports that containers publish on Docker's bridge.
    pub published: Vec<PublishedPort>,
}

/// A port that a container publishes.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishedPort {
    /// The VM's port and the container's.
    pub mapping: PortMapping,
    /// The file of the container's endpoints, which Envoy watches.
    pub endpoints: PathBuf,
}
