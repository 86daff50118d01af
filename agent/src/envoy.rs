//! Envoy: its bootstrap, its process, its end.

mod bootstrap;

pub use bootstrap::{AdminAddress, BootstrapOptions, bootstrap};
