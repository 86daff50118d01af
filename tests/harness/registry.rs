//! An image registry of one image: Envoy where Istio's proxy image has it. Files and a web server are all that pulling
//! asks for (opencontainers/distribution-spec).

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::docker::pack;
use crate::network::{Host, Network};
use crate::process::output_of;
use crate::web::{WebServer, folder};

const PORT: u16 = 5002;
const REPOSITORY: &str = "istio/proxyv2";

/// The registry, on a host's loopback, where it needs no TLS. Dropped: gone.
#[derive(Debug)]
pub struct Registry {
    _server: WebServer,
    digest: String,
}

impl Registry {
    /// Serves an image with this Envoy, by the tag `test`, in that host's eyes.
    pub fn start(network: &Network, host: Host, envoy: &Path) -> Result<Self> {
        let served = network.folder().join("registry");
        let repository = served.join("v2").join(REPOSITORY);
        let (manifests, blobs) = (repository.join("manifests"), repository.join("blobs"));
        let root = network.folder().join("proxyv2");
        for folder in [&manifests, &blobs, &root.join("usr/local/bin")] {
            fs::create_dir_all(folder)?;
        }
        // A link more would be a change under tar's eyes while other cases come and go.
        fs::copy(envoy, root.join("usr/local/bin/envoy"))?;
        let layer = pack(&root, network.folder().join("layer.tar"))?;
        fs::remove_dir_all(root)?;
        let (size, hash) = (fs::metadata(&layer)?.len(), sha256(&layer)?);
        fs::rename(layer, blobs.join(format!("sha256:{hash}")))?;
        let kind = "application/vnd.oci.image";
        let tag = manifests.join("test");
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}.manifest.v1+json","layers":[{{"mediaType":"{kind}.layer.v1.tar","digest":"sha256:{hash}","size":{size}}}]}}"#
        );
        fs::write(&tag, manifest)?;
        let digest = format!("sha256:{}", sha256(&tag)?);
        fs::copy(&tag, manifests.join(&digest))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        Ok(Self {
            _server: WebServer::start(network, host, address, None, folder(&served))?,
            digest,
        })
    }

    /// The image by its tag.
    pub fn image(&self) -> String {
        format!("127.0.0.1:{PORT}/{REPOSITORY}:test")
    }

    /// The image by its tag and its digest.
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.image(), self.digest)
    }
}

fn sha256(file: &Path) -> Result<String> {
    let mut sum = Command::new("sha256sum");
    sum.arg(file);
    let said = output_of(sum)?;
    let hash = said.split_whitespace().next().context("sha256sum said nothing")?;
    Ok(hash.to_owned())
}
