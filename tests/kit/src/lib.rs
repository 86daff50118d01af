//! Kit of the tests of every tier: unit tests of the agent, `agent/tests`, and the end-to-end cases. Nothing here
//! knows the agent, so that its own unit tests can use it.
//!
//! ```text
//! eventually   the one way to wait
//! namespace    networks of their own
//! pki          certificate authorities
//! tls          the server's end of TLS
//! web, grpc    servers
//! wire         protobuf messages without their types
//! google, oci  the metadata server, a registry of images
//! ```

#![expect(clippy::unwrap_used, reason = "a kit that can't be made fails its test")]

mod eventually;
pub mod google;
pub mod grpc;
pub mod namespace;
pub mod oci;
pub mod pki;
pub mod tls;
pub mod web;
pub mod wire;

pub use eventually::{PATIENCE, eventually, eventually_async};
