//! The client of a metadata server of tests.

pub(crate) use kit::google::MetadataServer;

use super::Metadata;

pub(crate) fn client(server: &MetadataServer) -> Metadata {
    Metadata::at(&server.server.url).unwrap()
}
