//! A VM that joins through the Kubernetes API, with the rights that `manifests` prints and no others.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::calls::Load;
use e2e::istiod::Istiod;
use e2e::kubernetes::{Cluster, GOOGLE_SERVICE_ACCOUNT, MESH};
use e2e::network::{Host, Network};
use e2e::pod::Pod;
use e2e::vm::{Agent, Settings, Vm};
use e2e::{PATIENCE, eventually};

use super::manifests::printed;

/// Dropped in this order: the VM first, the namespaces last.
pub(super) struct World {
    pub(super) vm: Vm,
    pub(super) cluster: Cluster,
    pub(super) istiod: Istiod,
    pub(super) _pod: Pod,
    pub(super) network: Network,
}

impl World {
    /// All is as it should be, and the agent doesn't run yet.
    pub(super) fn start() -> Result<Self> {
        let network = Network::new()?;
        let istiod = Istiod::start(&network)?;
        let pod = Pod::start(&network, istiod.state())?;
        let cluster = Cluster::start_for(&network, istiod.state())?;
        cluster.apply(MESH)?;
        let world = Self {
            vm: Vm::new(&network, settings(&network, &cluster))?,
            cluster,
            istiod,
            _pod: pod,
            network,
        };
        world.repair()?;
        fs::write(world.network.folder().join("cluster-ca.pem"), world.cluster.ca_pem())?;
        Ok(world)
    }

    /// Puts back whatever a case has changed in the cluster or on the VM.
    pub(super) fn repair(&self) -> Result<()> {
        self.cluster.apply(MESH)?;
        self.cluster
            .publish_root("onlineboutique", &self.istiod.state().root_pem())?;
        self.cluster
            .apply(&printed(&["--google-service-account", GOOGLE_SERVICE_ACCOUNT])?)?;
        self.give_token(&self.cluster.token(GOOGLE_SERVICE_ACCOUNT)?)?;
        for folder in [self.vm.state_folder(), self.vm.run_folder()] {
            let _ = fs::remove_dir_all(folder);
        }
        Ok(())
    }

    /// Gives the VM a token, by which it proves itself to the API server.
    pub(super) fn give_token(&self, token: &str) -> Result<()> {
        Ok(fs::write(token_file(&self.network), token)?)
    }

    /// Starts the agent, and waits until the VM serves the mesh.
    pub(super) fn join(&self) -> Result<Agent> {
        let mut agent = self.vm.start_agent(&self.network)?;
        agent.wait_until_ready(&self.network)?;
        eventually("istiod to hold the VM for healthy", PATIENCE, || {
            let entries = self.istiod.state().entries();
            let entry = entries.get("productcatalog-10.200.0.3").context("not registered")?;
            ensure!(entry.healthy() == Some(true), "{entry:?}");
            Ok(())
        })?;
        Ok(agent)
    }

    /// The pod calls the VM, and every call is answered.
    pub(super) fn expect_calls(&self) -> Result<()> {
        let calls = Load {
            authority: Some("productcatalogservice.onlineboutique:3550".to_owned()),
            ..Load::on(Pod::catalog())
        };
        eventually("the pod to learn of the VM", PATIENCE, || {
            calls.run(&self.network, Host::Pod)?.expect_all_answered()
        })
    }

    /// Starts the agent, and waits until it has said all `parts` in one line.
    pub(super) fn expect_said(&self, parts: &[&str]) -> Result<()> {
        let before = fs::read_to_string(self.network.folder().join("agent@vm.log")).map_or(0, |text| text.len());
        let mut agent = self.vm.start_agent(&self.network)?;
        let said = eventually(format!("{parts:?} to be said"), PATIENCE, || {
            let output = agent.output();
            let said = output.get(before..).unwrap_or_default();
            let has_all = |line: &&str| parts.iter().all(|part| line.contains(part));
            ensure!(said.lines().any(|line| has_all(&line)), "it said\n{said}");
            Ok(())
        });
        agent.kill()?;
        said
    }
}

fn settings(network: &Network, cluster: &Cluster) -> Settings {
    let (server, folder) = (cluster.address(), network.folder());
    let (ca_file, token_file) = (folder.join("cluster-ca.pem"), token_file(network));
    let join = format!(
        "kubernetes = {{ server = {server:?}, ca_file = {ca_file:?}, token_file = {token_file:?}, \
         namespace = \"onlineboutique\", workload_group = \"productcatalog\" }}"
    );
    Settings {
        join: Some(join),
        ..Settings::default()
    }
}

fn token_file(network: &Network) -> PathBuf {
    network.folder().join("cluster-token")
}
