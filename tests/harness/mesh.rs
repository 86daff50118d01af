//! A case's world: the network, a control plane, a pod and the VM.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Error, Result, bail};

use crate::calls::{Calling, Calls, Load};
use crate::istiod::{Istiod, PeerAuthentication, State};
use crate::network::{Host, Network};
use crate::pod::{self, Pod};
use crate::process::{Process, tail};
use crate::real::{Real, RealPod};
use crate::vm::{Agent, Settings, Vm};
use crate::{PATIENCE, bundle, eventually, programs};

/// Blanks before the keys of mesh.yaml's defaultConfig.
const PROBE_INDENT: usize = 2;

/// Kind of the istiod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Ours.
    StandIn,
    /// Istio's, from $LAB_BIN.
    Real,
}

/// The running control plane and the pod that it knows.
#[derive(Debug)]
pub enum ControlPlane {
    /// Ours.
    StandIn {
        /// The other end of calls.
        pod: Pod,
        /// istiod.
        istiod: Istiod,
    },
    /// Istio's.
    Real {
        /// The other end of calls.
        _pod: RealPod,
        /// etcd, API server, istiod.
        cluster: Box<Real>,
    },
}

impl ControlPlane {
    /// The stand-in's records and switches.
    ///
    /// # Errors
    /// For the real one, which fails on nobody's command.
    pub fn stand_in(&self) -> Result<&State> {
        match self {
            Self::StandIn { istiod, .. } => Ok(istiod.state()),
            Self::Real { .. } => bail!("only the stand-in does as it is told"),
        }
    }
}

/// See the module. Dropped in this order: the VM first, the namespaces last.
#[derive(Debug)]
pub struct Mesh {
    /// The VM.
    pub vm: Vm,
    /// istiod and the pod.
    pub control_plane: ControlPlane,
    /// The namespaces.
    pub network: Network,
}

/// Starts a world, runs `case` in it, and takes it down; a failure brings the logs.
pub fn with_mesh(kind: Kind, settings: Settings, case: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    let network = Network::new()?;
    let folder = network.folder().to_owned();
    let ended = Mesh::start(kind, settings, network).and_then(|mut mesh| {
        let ended = case(&mut mesh);
        ended.map_err(|error| with_logs(error, &folder))
    });
    ended.map_err(|error| Error::msg(format!("{error:#}")))
}

fn with_logs(error: Error, folder: &Path) -> Error {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut tails: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
        // What came of the calls is in the error, if it is about them.
        .filter(|path| !path.to_string_lossy().contains("/load-"))
        .map(|path| tail(&path))
        .collect();
    tails.sort();
    Error::msg(format!("{error:#}\n{}", tails.join("\n")))
}

impl Mesh {
    fn start(kind: Kind, settings: Settings, network: Network) -> Result<Self> {
        let control_plane = match kind {
            Kind::StandIn => {
                let istiod = Istiod::start(&network)?;
                let pod = Pod::start(&network, istiod.state())?;
                ControlPlane::StandIn { pod, istiod }
            }
            Kind::Real => {
                let cluster = Box::new(Real::start(&network)?);
                let _pod = RealPod::start(&network, &cluster)?;
                ControlPlane::Real { _pod, cluster }
            }
        };
        let mesh = Self {
            vm: Vm::new(&network, settings)?,
            control_plane,
            network,
        };
        mesh.write_bundle()?;
        Ok(mesh)
    }

    /// Gives the VM a fresh bundle.
    pub fn write_bundle(&self) -> Result<()> {
        match &self.control_plane {
            ControlPlane::StandIn { istiod, .. } => {
                bundle::write(&self.vm.bundle(), istiod.state(), &bundle::claims(), true)
            }
            ControlPlane::Real { cluster, .. } => cluster.bundle(&self.network, "productcatalog", &self.vm.bundle()),
        }
    }

    /// Gives the VM a fresh bundle of a WorkloadGroup without a probe.
    pub fn write_bundle_without_probe(&self) -> Result<()> {
        self.write_bundle()?;
        let file = self.vm.bundle().join("mesh.yaml");
        let mut inside = false;
        let mut kept = String::new();
        for line in fs::read_to_string(&file)?.lines() {
            let indent = line.len() - line.trim_start().len();
            inside = line.trim() == "readinessProbe:" || inside && indent > PROBE_INDENT;
            if !inside {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        Ok(fs::write(file, kept)?)
    }

    /// Starts a second workload of productcatalogservice, outside the VM and without a proxy; callers try no call twice.
    pub fn start_second_workload(&self) -> Result<Process> {
        let workload = self
            .network
            .spawn(Host::Outside, "second", programs::productcatalog()?, &[])?;
        let address = Host::Outside.ipv4().to_string();
        match &self.control_plane {
            ControlPlane::StandIn { istiod, .. } => istiod.state().add_endpoint(&address),
            ControlPlane::Real { cluster, .. } => cluster.add_endpoint(&self.network, &address)?,
        }
        Ok(workload)
    }

    /// Starts a program outside the mesh on `port`; a real istiod has its service by the name `host`, the stand-in none.
    pub fn start_service_outside(&self, host: &str, port: u16) -> Result<Process> {
        let args = ["--port", &port.to_string()];
        let service = self
            .network
            .spawn(Host::Outside, "service", programs::productcatalog()?, &args)?;
        if let ControlPlane::Real { cluster, .. } = &self.control_plane {
            cluster.add_service(&self.network, host, &Host::Outside.ipv4().to_string(), port)?;
        }
        Ok(service)
    }

    /// Starts the agent, and waits until the VM serves the mesh.
    pub fn join(&self) -> Result<Agent> {
        let mut agent = self.vm.start_agent(&self.network)?;
        agent.wait_until_ready(&self.network)?;
        self.wait_until_healthy(true)?;
        Ok(agent)
    }

    /// Waits until istiod holds the VM for healthy, or not.
    pub fn wait_until_healthy(&self, healthy: bool) -> Result<()> {
        eventually(format!("health to be {healthy} at istiod"), PATIENCE, || {
            let seen = self.healthy()?;
            anyhow::ensure!(seen == Some(healthy), "it is {seen:?}");
            Ok(())
        })
    }

    /// Begins so many calls a second of the pod's, until they are stopped, once one is answered.
    pub fn start_calls(&self, rate: u32) -> Result<Calling> {
        self.wait_until_called()?;
        let load = self.calls_to_the_vm().until_stopped(rate);
        load.start(&self.network, Host::Pod)
    }

    /// 200 calls of the pod's, each of which is answered, once one is.
    pub fn expect_calls(&self) -> Result<Calls> {
        self.wait_until_called()?;
        let calls = self.calls_to_the_vm().run(&self.network, Host::Pod)?;
        calls.expect_all_answered()?;
        Ok(calls)
    }

    /// Waits until a call of the pod's is answered: it may learn of the VM a moment after istiod has.
    pub fn wait_until_called(&self) -> Result<()> {
        let first = self.calls_to_the_vm().at_rate(10, Duration::from_millis(100));
        eventually("a first answer", PATIENCE, || {
            first.run(&self.network, Host::Pod)?.expect_all_answered()
        })
    }

    /// The Healthy condition of the VM's WorkloadEntry.
    pub fn healthy(&self) -> Result<Option<bool>> {
        self.healthy_at(Host::Vm.ipv4())
    }

    /// The Healthy condition of the VM's WorkloadEntry for this address.
    pub fn healthy_at(&self, address: Ipv4Addr) -> Result<Option<bool>> {
        let name = format!("productcatalog-{address}");
        match &self.control_plane {
            ControlPlane::StandIn { istiod, .. } => {
                Ok(istiod.state().entries().get(&name).and_then(|entry| entry.healthy()))
            }
            ControlPlane::Real { cluster, .. } => cluster.healthy(&self.network, &name),
        }
    }

    /// Sets the mesh's demand on the VM's callers from now on.
    pub fn set_peer_authentication(&self, mode: PeerAuthentication) -> Result<()> {
        match &self.control_plane {
            ControlPlane::StandIn { istiod, .. } => {
                istiod.state().set_peer_authentication(mode);
                Ok(())
            }
            ControlPlane::Real { cluster, .. } => cluster.set_peer_authentication(&self.network, mode),
        }
    }

    /// kill -9 for istiod.
    pub fn kill_istiod(&mut self) -> Result<()> {
        match &mut self.control_plane {
            ControlPlane::StandIn { istiod, .. } => {
                istiod.kill();
                Ok(())
            }
            ControlPlane::Real { cluster, .. } => cluster.kill_istiod(),
        }
    }

    /// Starts istiod again.
    pub fn start_istiod(&mut self) -> Result<()> {
        match &mut self.control_plane {
            ControlPlane::StandIn { istiod, .. } => istiod.restart(&self.network),
            ControlPlane::Real { cluster, .. } => cluster.start_istiod(&self.network),
        }
    }

    /// The pod's calls to the VM.
    pub fn calls_to_the_vm(&self) -> Load {
        let name = "productcatalogservice.onlineboutique:3550".to_owned();
        match &self.control_plane {
            ControlPlane::StandIn { .. } => Load {
                authority: Some(name),
                ..Load::on(Pod::catalog())
            },
            ControlPlane::Real { .. } => Load::on(name),
        }
    }

    /// The VM's calls to the pod, by its name in the mesh.
    pub fn calls_to_the_pod(&self) -> Load {
        Load::on(format!("cartservice.onlineboutique:{}", pod::CART_PORT))
    }

    /// Plaintext calls to the VM, each on its own connection; from [`Host::Outside`] they pass no proxy.
    pub fn plaintext_calls_to_the_vm(&self) -> Load {
        Load {
            reconnect: true,
            deadline: Duration::from_secs(1),
            ..Load::on(Network::address(Host::Vm, 3550))
        }
    }
}

/// True when the real istiod can be had.
pub fn real_is_at_hand() -> bool {
    programs::lab().is_some()
}
