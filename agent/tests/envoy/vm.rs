//! A VM for these cases: a network namespace of its own, a run directory, and an istiod that knows one listener.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use istio_vm_agent::bounds::Refusals;
use istio_vm_agent::config::{EnvoyConfig, PathsConfig};
use istio_vm_agent::envoy::{self, Options};
use istio_vm_agent::facts::{EnvoyCounts, EnvoyState, Membership, ProxyConfig, SpiffeId};
use istio_vm_agent::host::{Host, Invocation, Owner};
use istio_vm_agent::supervise::Supervisor;
use kit::{PATIENCE, namespace};
use serde_json::json;
use tokio::sync::watch;

use crate::istiod::Istiod;
use crate::log::Log;

pub(crate) const ENVOY: Owner = Owner { uid: 1337, gid: 1337 };

pub(crate) struct Vm {
    pub(crate) options: Options,
    pub(crate) membership: watch::Sender<Arc<Membership>>,
    pub(crate) log: Log,
    pub(crate) istiod: Istiod,
    _directory: tempfile::TempDir,
    _subscriber: tracing::subscriber::DefaultGuard,
}

/// One life of an agent.
pub(crate) struct Agent {
    supervisor: Supervisor,
    pub(crate) state: watch::Receiver<EnvoyState>,
}

impl Vm {
    /// A VM whose network is this thread's alone.
    pub(crate) fn new() -> Self {
        namespace::leave().unwrap();
        let host = Host::system();
        host.run(&Invocation::new(["ip", "link", "set", "lo", "up"])).unwrap();
        // As the package has it in systemd/60-istio-vm-agent.conf.
        std::fs::write("/proc/sys/net/ipv4/tcp_migrate_req", "1").unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let paths = PathsConfig {
            run: directory.path().join("run"),
            state: directory.path().join("state"),
        };
        let config = EnvoyConfig {
            binary: Some(binary()),
            concurrency: Some(1),
            ..EnvoyConfig::default()
        };
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        host.make_directory(&paths.run, 0o755, None).unwrap();
        let istiod = Istiod::new(&host, &paths.xds_socket());
        Self {
            options: Options {
                host,
                config,
                paths,
                unit: None,
                published: Vec::new(),
                refusals: Refusals::default(),
                counts: EnvoyCounts::default(),
            },
            membership: watch::Sender::new(Arc::new(membership())),
            log,
            _directory: directory,
            istiod,
            _subscriber: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Starts an agent that has Envoy's two tasks.
    pub(crate) fn agent(&self) -> Agent {
        let mut supervisor = Supervisor::default();
        let state = watch::Sender::new(EnvoyState::Waiting);
        let (options, membership) = (self.options.clone(), self.membership.subscribe());
        let outputs = envoy::Outputs {
            state: state.clone(),
            problem: watch::Sender::new(None),
            version: watch::Sender::new(None),
        };
        supervisor.spawn("envoy", PATIENCE, |scope| {
            envoy::run(scope, options, membership, Arc::from([]), outputs)
        });
        let (options, membership) = (self.options.clone(), self.membership.subscribe());
        let (said, state) = (state.clone(), state.subscribe());
        let never = watch::Sender::new(false).subscribe();
        supervisor.spawn("drain", PATIENCE, |scope| {
            envoy::drain(scope, options, membership, said, never)
        });
        Agent { supervisor, state }
    }

    pub(crate) fn running(&self) -> Option<u32> {
        envoy::running(&self.options.host, &self.options.paths)
    }

    /// The names in the run directory, istiod's socket aside.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.options.paths.run).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "xds.sock").collect()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // A case that failed leaves its Envoy behind, and the one before it.
        while let Some(pid) = self.running() {
            let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Agent {
    /// Waits for a state.
    pub(crate) async fn wait_for(&mut self, wanted: impl FnMut(&EnvoyState) -> bool) -> EnvoyState {
        let found = tokio::time::timeout(PATIENCE, self.state.wait_for(wanted)).await;
        found
            .map(|state| state.unwrap().clone())
            .unwrap_or_else(|_| panic!("stayed {:?}", self.state.borrow()))
    }

    /// Waits until an Envoy is ready, and no other one is to be: pid, adopted, restarts.
    pub(crate) async fn ready(&mut self) -> (u32, bool, u32) {
        self.ready_after(0).await
    }

    /// Waits until another Envoy than this one is ready, and no other one is to be: pid, adopted, restarts.
    pub(crate) async fn ready_after(&mut self, before: u32) -> (u32, bool, u32) {
        let settled = |state: &EnvoyState| {
            let settled = state.is_ready() && state.successor().is_none();
            settled && !matches!(*state, EnvoyState::Ready { pid, .. } if pid == before)
        };
        match self.wait_for(settled).await {
            EnvoyState::Ready {
                pid, adopted, restarts, ..
            } => (pid, adopted, restarts),
            state => panic!("{state:?}"),
        }
    }

    /// Waits until one Envoy serves and another, for a reason that has this in it, does not.
    pub(crate) async fn succeeded_in_vain(&mut self, cause: &str) -> u32 {
        let told = |state: &EnvoyState| state.successor().is_some_and(|it| it.cause().contains(cause));
        match self.wait_for(told).await {
            EnvoyState::Ready { pid, .. } => pid,
            state => panic!("{state:?}"),
        }
    }

    /// Waits for the end of a task.
    pub(crate) async fn failure(mut self) -> anyhow::Error {
        self.supervisor.failed().await
    }

    /// Drains the agent as SIGTERM does.
    pub(crate) async fn drain(self) {
        self.supervisor.drain().await;
    }

    /// Ends the agent as SIGKILL does: nothing of ours runs any more.
    pub(crate) fn die(self) {
        drop(self.supervisor);
    }
}

/// Completes when `done` says so.
pub(crate) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let look = || done().then_some(()).context("not yet");
    kit::eventually_async(what, PATIENCE, look).await.unwrap();
}

pub(crate) fn binary() -> PathBuf {
    let path = std::env::var("ISTIO_VM_AGENT_ENVOY").expect("set ISTIO_VM_AGENT_ENVOY to an Envoy");
    assert!(
        Path::new(&path).is_file(),
        "ISTIO_VM_AGENT_ENVOY = {path}: no such file"
    );
    path.into()
}

pub(crate) fn membership() -> Membership {
    let config = json!({ "drainDuration": "45s", "terminationDrainDuration": "5s", "statusPort": 15020 });
    Membership {
        env: [("ISTIO_META_WORKLOAD_NAME".to_owned(), "productcatalog".to_owned())].into(),
        proxy_config: ProxyConfig(config.as_object().unwrap().clone()),
        spiffe_id: SpiffeId {
            trust_domain: "cluster.local".to_owned(),
            namespace: "onlineboutique".to_owned(),
            service_account: "productcatalog".to_owned(),
        },
        cluster_id: "Kubernetes".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        discovery_address: "istiod.istio-system.svc:15012".to_owned(),
        ca_address: "istiod.istio-system.svc:15012".to_owned(),
        node_name: "vm".to_owned(),
        instance_ips: vec![Ipv4Addr::new(10, 200, 0, 3).into()],
        ..Membership::default()
    }
}
