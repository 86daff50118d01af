//! Fuzz targets: Envoy's account of itself, a report's pieces, and the kept metadata of the instance.

pub(crate) use super::bugreport::fuzz::{envoy_fields, journal_line, secrets_in_text};
pub(crate) use super::configuration::fuzz::instance_metadata;
pub(crate) use super::explain::fuzz::{access_log, connections, envoy_dump};
pub(crate) use super::proxy::fuzz::tables as proxy_tables;
