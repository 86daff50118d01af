//! An image registry of one image: Envoy where Istio's proxy image has it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use kit::oci::{self, Content};

use crate::docker::pack;
use crate::network::{Host, Network};
use crate::web::WebServer;

const PORT: u16 = 5002;

/// The registry, on a host's loopback, where it needs no TLS. Dropped: gone.
#[derive(Debug)]
pub struct Registry {
    _server: WebServer,
    digest: String,
}

impl Registry {
    /// Serves an image with this Envoy, by the tag `1`, in that host's eyes.
    pub fn start(network: &Network, host: Host, envoy: &Path) -> Result<Self> {
        let root = network.folder().join("proxyv2");
        fs::create_dir_all(root.join("usr/local/bin"))?;
        // A link more would be a change under tar's eyes while other cases come and go.
        fs::copy(envoy, root.join("usr/local/bin/envoy"))?;
        let layer = fs::read(pack(&root, network.folder().join("layer.tar"))?)?;
        fs::remove_dir_all(root)?;
        let content = Content::of(&[layer]);
        let digest = content.digest();
        let router = oci::router(&Arc::new(Mutex::new(content)));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        Ok(Self {
            _server: WebServer::start(network, host, address, None, router)?,
            digest,
        })
    }

    /// The image by its tag.
    pub fn image(&self) -> String {
        format!("127.0.0.1:{PORT}/istio/proxyv2:1")
    }

    /// The image by its tag and its digest.
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.image(), self.digest)
    }
}
