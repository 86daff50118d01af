//! Wire types of istiod, Envoy and gRPC health, trimmed to the fields that the agent reads or writes.
//!
//! The code is generated from `proto/` and checked in, so that no build needs protoc; `tests/generated.rs`
//! holds both together.

pub mod frame;

mod generated {
    include!("generated/packages.rs");
}

/// Aggregated discovery (Envoy's xDS), with typed messages.
pub mod ads {
    pub use crate::generated::envoy::config::core::v3::{ControlPlane, Node};
    pub use crate::generated::envoy::service::discovery::v3::*;

    /// The type URL of the agent's word on the application's health. It has no message: the request itself says
    /// healthy, or unhealthy by its `error_detail` (istio/pkg/istio-agent/health).
    pub const HEALTH_INFORMATION: &str = "type.googleapis.com/istio.v1.HealthInformation";

    /// The type URL of istiod's list of its proxies. Since 1.26 its answers alone say which Istio it is
    /// (istio/pilot/pkg/xds/xdsgen.go); a question for it is no subscription.
    pub const SYNC_STATUS: &str = "istio.io/debug/syncz";

    /// The type URL of a question to istiod's debug interface; the one resource name is its path and query
    /// (istio/pilot/pkg/xds/debuggen.go).
    pub const DEBUG: &str = "istio.io/debug";
}

/// istiod's certificate authority.
pub mod ca {
    pub use crate::generated::istio::v1::auth::*;
}

/// gRPC health checking.
pub mod health {
    pub use crate::generated::grpc::health::v1::*;
}

/// Online Boutique's product catalogue, for tests.
pub mod hipstershop {
    pub use crate::generated::hipstershop::*;
}

/// istiod's name table.
pub mod nds {
    pub use crate::generated::istio::networking::nds::v1::*;

    /// The name table's type URL.
    pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
}

/// Messages that several protocols share: `Status`, `Any`, and JSON as `Struct`.
pub mod rpc {
    pub use crate::generated::google::protobuf::*;
    pub use crate::generated::google::rpc::*;
}

/// Envoy's secret discovery.
pub mod sds {
    pub use crate::generated::envoy::config::core::v3::{DataSource, data_source};
    pub use crate::generated::envoy::extensions::transport_sockets::tls::v3::*;
    pub use crate::generated::envoy::service::secret::v3::*;

    /// A secret's type URL.
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
}
