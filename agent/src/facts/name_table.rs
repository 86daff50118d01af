//! Published by `xds`: istiod's name table (istio.networking.nds.v1.NameTable).

use std::collections::HashMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Host name (no trailing dot, lower case) to its addresses.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NameTable {
    /// Hosts by name.
    pub names: HashMap<String, NameInfo>,
}

impl NameTable {
    /// Longest text of a table that is kept in a file, in bytes: JSON is longer than istiod's message, of which 16 MiB are
    /// taken.
    pub const MAX_TEXT: usize = 32 << 20;
}

/// One host of the name table.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct NameInfo {
    /// Addresses, both families.
    pub ips: Vec<IpAddr>,
    /// `Kubernetes` or `External`.
    pub registry: String,
    /// Service name, of a Kubernetes service.
    pub shortname: String,
    /// Namespace of that service.
    pub namespace: String,
}
