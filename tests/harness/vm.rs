//! The VM: what the operator puts on it, and the agent under test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::clock::OwnClocks;
use crate::disk::SmallDisk;
use crate::docker::Docker;
use crate::network::{EtcView, Host, Network};
use crate::process::Process;
use crate::registry::Registry;
use crate::{PATIENCE, eventually, http, programs};

/// Where the agent answers; Envoy, on 15021, says that it serves while there is no agent.
const READINESS_PORT: u16 = 15020;

/// Command that does as the package's sysctl.d.
const MIGRATE_CONNECTIONS: &str = "echo 1 >/proc/sys/net/ipv4/tcp_migrate_req && ";

/// The unit of the agent, whose environment an agent without systemd has, too.
const UNIT: &str = include_str!("../../systemd/istio-vm-agent.service");

/// Megabytes of a small disk of dockerd's: two images of the application, and a layer that is on its way.
const DOCKER_DISK: u32 = 256;

/// Names and values of the unit's environment.
fn environment() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = UNIT.lines().filter_map(|line| line.strip_prefix("Environment="));
    lines
        .flat_map(str::split_whitespace)
        .filter_map(|one| one.split_once('='))
}

/// Form in which the application runs.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Application {
    /// As a process, which the operator started.
    #[default]
    Process,
    /// As a container of the agent, on Docker's bridge.
    Container,
    /// As a container of the agent, on the VM's own network.
    HostContainer,
    /// Not at all.
    None,
}

/// Settings that differ between the VMs of the cases.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `auto`, `nftables`, `iptables`.
    pub backend: &'static str,
    /// The way in which the VM sees its /etc.
    pub etc: EtcView,
    /// Form in which the application runs.
    pub application: Application,
    /// Text of `[join]`; `None`: the bundle.
    pub join: Option<String>,
    /// daemon.json of the VM's dockerd, where there is one.
    pub docker_config: &'static str,
    /// True when its dockerd has a disk of its own, which a case may fill.
    pub small_docker_disk: bool,
    /// True when the agent takes Envoy out of an image, of a registry on the VM itself.
    pub envoy_image: bool,
    /// True when network.address says which of its addresses the mesh is told.
    pub fixed_address: bool,
    /// More of the configuration file, after the rest.
    pub more: String,
    /// The agent; `None`: the one beside the program that runs.
    pub program: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: "auto",
            etc: EtcView::Plain,
            application: Application::Process,
            join: None,
            docker_config: "{}",
            small_docker_disk: false,
            envoy_image: false,
            fixed_address: true,
            more: String::new(),
            program: None,
        }
    }
}

/// The VM's disk and what runs on it, but for the agent.
#[derive(Debug)]
pub struct Vm {
    settings: Settings,
    folder: PathBuf,
    application: Option<Process>,
    docker: Option<Docker>,
    _docker_disk: Option<SmallDisk>,
    registry: Option<Registry>,
    /// Disk that paths.state is on, where it is no folder of this machine's.
    disk: Option<SmallDisk>,
    /// Shell commands, each with its `&&`, in the agent's mount namespace before it starts.
    prelude: String,
    /// True when the agent is told of its configuration file.
    has_file: bool,
    /// The agent's clocks, where they are not this machine's.
    clocks: Option<OwnClocks>,
}

impl Vm {
    /// Makes the VM's files, with the bundle in [`Vm::bundle`] still to be written, and starts what the operator runs.
    pub fn new(network: &Network, settings: Settings) -> Result<Self> {
        let folder = network.folder().join("vm");
        fs::create_dir_all(&folder)?;
        let _docker_disk = match settings.small_docker_disk {
            true => Some(SmallDisk::at(Docker::data(network), DOCKER_DISK)?),
            false => None,
        };
        let docker = match settings.application {
            Application::Container | Application::HostContainer => {
                Some(Docker::start(network, settings.docker_config)?)
            }
            Application::Process | Application::None => None,
        };
        let mut vm = Self {
            settings,
            folder,
            application: None,
            docker,
            _docker_disk,
            registry: None,
            disk: None,
            prelude: MIGRATE_CONNECTIONS.to_owned(),
            has_file: true,
            clocks: None,
        };
        programs::install_envoy(&vm.envoy())?;
        if vm.settings.envoy_image {
            vm.registry = Some(Registry::start(network, Host::Vm, &vm.envoy())?);
        }
        fs::write(vm.config(), vm.configuration()?)?;
        if vm.settings.application == Application::Process {
            vm.start_application(network)?;
        }
        Ok(vm)
    }

    /// Starts the application as a process.
    pub fn start_application(&mut self, network: &Network) -> Result<()> {
        self.application = Some(network.spawn(Host::Vm, "productcatalog", programs::productcatalog()?, &[])?);
        Ok(())
    }

    /// Where the bundle belongs.
    pub fn bundle(&self) -> PathBuf {
        self.folder.join("bundle")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// paths.run.
    pub fn run_folder(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// paths.state.
    pub fn state_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Puts a shell script before a program of /usr/sbin on the agent's path, as `$REAL` within.
    pub fn replace_program(&mut self, name: &str, script: &str) -> Result<()> {
        let folder = self.folder.join("sbin");
        fs::create_dir_all(&folder)?;
        let file = folder.join(name);
        fs::write(&file, format!("#!/bin/sh\nREAL=/usr/sbin/{name}\n{script}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        self.prelude += &format!("mount --bind {} /usr/local/sbin && ", folder.display());
        Ok(())
    }

    /// Sets the agent's clock, and no other program's, to so many days from now; while it runs, too, if that was done
    /// before it started.
    pub fn set_clock(&mut self, days_ahead: i64) -> Result<()> {
        self.clocks()?.set_days_ahead(days_ahead)
    }

    /// Has the agent, whose clock was set before it started, wake from a sleep of so many days.
    pub fn sleep(&mut self, days: i64) -> Result<()> {
        self.clocks()?.sleep(days)
    }

    fn clocks(&mut self) -> Result<&mut OwnClocks> {
        match &mut self.clocks {
            Some(clocks) => Ok(clocks),
            none => Ok(none.insert(OwnClocks::new(&self.folder)?)),
        }
    }

    /// Leaves the agent no room in paths.state.
    pub fn fill_the_state_disk(&mut self) {
        let state = self.state_folder();
        let state = state.display();
        self.prelude += &format!(
            "mkdir -p {state} && mount -t tmpfs -o size=1M tmpfs {state} && {{ head -c 2M /dev/zero >{state}/full 2>/dev/null || :; }} && "
        );
    }

    /// Gives paths.state a small disk of its own, which a case may fill while the agent runs.
    pub fn give_the_state_a_disk(&mut self) -> Result<()> {
        self.disk = Some(SmallDisk::at(self.state_folder(), 32)?);
        Ok(())
    }

    /// Gives the agent a file of its own in the place of the kernel's account of memory; returns the file.
    pub fn own_memory_pressure(&mut self) -> PathBuf {
        let file = self.folder.join("pressure");
        self.prelude += &format!("mount --bind {} /proc/pressure/memory && ", file.display());
        file
    }

    /// Has the agent find a metadata server, as on Google's machines.
    pub fn put_on_google(&mut self) {
        self.prelude += "export GCE_METADATA_HOST=169.254.169.254 && ";
    }

    /// Makes /etc, in the eyes of the agent, one that can't be written to.
    pub fn freeze_etc(&mut self) {
        self.prelude += "mount -o remount,ro,bind /etc && ";
    }

    /// Puts another `[join]` into the configuration file.
    pub fn set_join(&self, join: &str) -> Result<()> {
        let text = fs::read_to_string(self.config())?;
        let (_, rest) = text
            .split_once("[network]")
            .context("the configuration has another shape")?;
        Ok(fs::write(self.config(), format!("{join}[network]{rest}"))?)
    }

    /// Takes the configuration file away and leaves the agent to the instance's metadata; returns what was in the file.
    /// The VM trusts whom `ca_file` holds.
    pub fn rely_on_the_instance(&mut self, ca_file: &Path) -> Result<String> {
        let text = fs::read_to_string(self.config())?;
        fs::remove_file(self.config())?;
        self.has_file = false;
        let (ca_file, state) = (ca_file.display(), self.state_folder());
        // This machine is none of Google's, and so the operator has to say where the metadata server is.
        let google = format!("SSL_CERT_FILE={ca_file} GCE_METADATA_HOST=169.254.169.254");
        self.prelude += &format!("export {google} STATE_DIRECTORY={} && ", state.display());
        Ok(text)
    }

    /// Gives the agent the folders and the Envoy of an installation, for a configuration that says nothing of them.
    pub fn keep_to_the_default_places(&mut self) -> Result<()> {
        let folders = [("lib", "/var/lib"), ("runtime", "/run"), ("programs", "/usr/local/bin")];
        for (name, place) in folders {
            let folder = self.folder.join(name);
            fs::create_dir_all(&folder)?;
            self.prelude += &format!("mount --bind {} {place} && ", folder.display());
        }
        fs::rename(self.envoy(), self.folder.join("programs/envoy"))?;
        Ok(())
    }

    /// dockerd of the VM.
    pub fn docker(&self) -> Result<&Docker> {
        self.docker.as_ref().context("this VM has no Docker")
    }

    /// Ends dockerd by a signal and starts it again, as an upgrade does.
    pub fn restart_docker(&mut self, network: &Network, signal: Signal) -> Result<()> {
        let docker = self.docker.as_mut().context("this VM has no Docker")?;
        docker.restart(network, signal)
    }

    /// Ends the registry that it takes Envoy from.
    pub fn stop_registry(&mut self) {
        self.registry = None;
    }

    /// The way in which the VM sees its /etc.
    pub fn etc(&self) -> EtcView {
        self.settings.etc
    }

    /// Signals the application, wherever it runs.
    pub fn signal_application(&self, signal: Signal) -> Result<()> {
        if let Some(process) = &self.application {
            return process.signal(signal);
        }
        let pid = self.docker()?.pid_of("productcatalogservice")?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no pid")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Starts the agent.
    pub fn start_agent(&self, network: &Network) -> Result<Agent> {
        let process = Process::spawn("agent@vm", self.agent_command(network, &["run"])?, network.folder())?;
        Ok(Agent { process })
    }

    /// Starts the process that holds the VM's place in the mesh while the agent doesn't.
    pub fn start_xds_standby(&self, network: &Network) -> Result<Process> {
        let folders = [self.run_folder(), self.state_folder()].map(|folder| folder.display().to_string());
        let command = self.agent_command(network, &["xds-standby", &folders[0], &folders[1]])?;
        Process::spawn("xds-standby@vm", command, network.folder())
    }

    /// Runs another verb of the agent.
    pub fn agent(&self, network: &Network, args: &[&str]) -> Result<Output> {
        let mut command = self.agent_command(network, args)?;
        command.output().context("failed to run the agent")
    }

    /// `status --output json`, and how long it took.
    pub fn status(&self, network: &Network) -> Result<(Value, Duration)> {
        let start = Instant::now();
        let output = self.agent(network, &["status", "--output", "json"])?;
        let took = start.elapsed();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        let status = serde_json::from_str(&text).with_context(|| format!("status printed {text:?} {errors}"))?;
        Ok((status, took))
    }

    /// The pid of the agent's Envoy, by `status`.
    pub fn envoy_pid(&self, network: &Network) -> Result<Pid> {
        let (status, _) = self.status(network)?;
        let pid = status["envoy"]["pid"]
            .as_i64()
            .and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        pid.with_context(|| format!("status names no Envoy: {status}"))
    }

    /// Waits until what Envoy has is kept for a boot without istiod; its size in bytes.
    pub fn await_snapshot(&self) -> Result<u64> {
        let file = self.state_folder().join("xds.snapshot");
        eventually("a snapshot", PATIENCE, || Ok(fs::metadata(&file)?.len()))
    }

    /// Leaves of the VM what a power cut leaves: its disk.
    pub fn power_cycle(&self, network: &Network, agent: &mut Agent) -> Result<()> {
        let envoy = self.envoy_pid(network)?;
        agent.kill()?;
        kill_process(envoy, Signal::KILL)?;
        if self.docker().is_ok() {
            self.signal_application(Signal::KILL)?;
        }
        let tables = network.run(Host::Vm, "nft", &["list", "tables"])?;
        for table in tables.lines().filter(|table| table.contains("istio_vm_agent")) {
            let words: Vec<&str> = ["delete"].into_iter().chain(table.split(' ')).collect();
            network.run(Host::Vm, "nft", &words)?;
        }
        Ok(fs::remove_dir_all(self.run_folder())?)
    }

    fn agent_command(&self, network: &Network, args: &[&str]) -> Result<Command> {
        // Within the mount namespace that the network's command makes for it.
        let mut command = network.command(Host::Vm, self.settings.etc, "sh");
        let preload = self
            .clocks
            .iter()
            .map(|clocks| format!("export {} && ", clocks.preload));
        let clocks: String = preload.collect();
        command
            .arg("-c")
            .arg(format!(r#"{}{clocks}exec "$0" "$@""#, self.prelude));
        let program = self.settings.program.clone();
        command.arg(program.map_or_else(programs::agent, Ok)?);
        command.args(args);
        if self.has_file {
            command.arg("--config").arg(self.config());
        }
        // Its own log level, not the test's.
        command.env_remove("RUST_LOG").env_remove("NOTIFY_SOCKET");
        command.envs(environment());
        Ok(command)
    }

    /// envoy.binary.
    pub fn envoy(&self) -> PathBuf {
        self.folder.join("envoy")
    }

    fn configuration(&self) -> Result<String> {
        let [bundle, state, run] =
            [self.bundle(), self.state_folder(), self.run_folder()].map(|path| path.display().to_string());
        let envoy = match &self.registry {
            None => format!("binary = {:?}", self.envoy()),
            Some(registry) => format!("image = {:?}", registry.pinned()),
        };
        let from_the_bundle = || format!("directory = {{ path = {bundle:?} }}");
        let join = self.settings.join.clone().unwrap_or_else(from_the_bundle);
        let address = match self.settings.fixed_address {
            true => format!("address = \"{}\"\n", Host::Vm.ipv4()),
            false => String::new(),
        };
        let backend = self.settings.backend;
        let mut text = format!(
            "[join]\n{join}\n\
             [network]\n{address}name = \"vm\"\n\
             [intercept]\nbackend = {backend:?}\n\
             [envoy]\nconcurrency = 1\n{envoy}\n\
             [paths]\nstate = {state:?}\nrun = {run:?}\n"
        );
        if let Some(docker) = &self.docker {
            let (image, socket) = (docker.image(), docker.socket().display().to_string());
            let network = if self.settings.application == Application::HostContainer {
                "network = \"host\""
            } else {
                "network = \"bridge\"\nports = [\"3550:3550\"]"
            };
            text.push_str(&format!(
                "[workload.container]\nname = \"productcatalogservice\"\nimage = {image:?}\n\
                 {network}\ndocker_socket = {socket:?}\n"
            ));
        }
        Ok(text + &self.settings.more)
    }
}

/// A running agent. Dropped: killed; its Envoy is the network's to sweep.
#[derive(Debug)]
pub struct Agent {
    process: Process,
}

impl Agent {
    /// Waits until it and its Envoy say that the VM serves.
    pub fn wait_until_ready(&mut self, network: &Network) -> Result<()> {
        eventually("the agent to be ready", PATIENCE, || {
            self.process.check_alive()?;
            let (code, body) = http::get(network, Host::Vm, READINESS_PORT, "/healthz/ready")?;
            ensure!(code == 200, "readiness is {code}: {body}");
            Ok(())
        })
    }

    /// As `kill -9` does.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        let status = self.process.wait(Duration::from_secs(40))?;
        if !status.success() {
            bail!("the agent ended with {status} after SIGTERM\n{}", self.process.output());
        }
        Ok(())
    }

    /// Waits for an end that it comes to by itself.
    pub fn wait(&mut self, deadline: Duration) -> Result<ExitStatus> {
        self.process.wait(deadline)
    }

    /// An order of root's on its port: `/drain`, `/quitquitquit`.
    pub fn order(&self, network: &Network, path: &str) -> Result<()> {
        let (code, body) = http::post(network, Host::Vm, READINESS_PORT, path)?;
        ensure!(code == 200, "POST {path}: {code}: {body}");
        Ok(())
    }

    /// Pid of the agent.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Log of the agent so far.
    pub fn output(&self) -> String {
        self.process.output()
    }

    /// Bytes that it has logged so far.
    pub fn log_length(&self) -> Result<u64> {
        self.process.output_length()
    }

    /// Log of the agent after so many bytes.
    pub fn logged_after(&self, length: u64) -> Result<String> {
        self.process.output_after(length)
    }
}
