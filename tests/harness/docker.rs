//! A real dockerd in the VM's namespace, a real registry beside the control plane, and the application as an image.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;

use crate::network::{Host, Network};
use crate::process::{Process, output_of};
use crate::{PATIENCE, eventually, http, programs};

/// Debian's; other programs of that name on the way shadow it on some machines.
const CLI: &str = "/usr/bin/docker";
/// None of the mesh's own ports: what is pulled through Envoy goes out as it is.
const REGISTRY_PORT: u16 = 5001;

/// Both daemons.
#[derive(Debug)]
pub struct Docker {
    dockerd: Process,
    _registry: Process,
    folder: PathBuf,
}

impl Docker {
    /// Starts both, dockerd with this daemon.json; pushes the application's image and forgets it, so that it must be pulled.
    pub fn start(network: &Network, config: &str) -> Result<Self> {
        let folder = network.folder().join("docker");
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("daemon.json"), config)?;
        let mut docker = Self {
            dockerd: start_dockerd(network, &folder)?,
            _registry: start_registry(network, &folder)?,
            folder,
        };
        docker.wait_until_up()?;
        eventually("the registry", PATIENCE, || {
            http::get(network, Host::ControlPlane, REGISTRY_PORT, "/v2/").map(drop)
        })?;
        docker.publish(&image_tar(network.folder())?, &docker.image())?;
        Ok(docker)
    }

    /// Ends dockerd by this signal, and starts it again.
    pub(crate) fn restart(&mut self, network: &Network, signal: Signal) -> Result<()> {
        self.dockerd.signal(signal)?;
        self.dockerd.wait(PATIENCE)?;
        // Its containerd ends with it; where nobody reaps that, its pid would be taken for one that runs.
        let _ = fs::remove_file(self.folder.join("exec/containerd/containerd.pid"));
        self.dockerd = start_dockerd(network, &self.folder)?;
        self.wait_until_up()
    }

    fn wait_until_up(&mut self) -> Result<()> {
        eventually("dockerd", PATIENCE, || {
            self.dockerd.check_alive()?;
            self.cli(&["version"]).map(drop)
        })
    }

    /// The Engine API's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// The application's image.
    pub fn image(&self) -> String {
        format!(
            "{}/productcatalogservice:latest",
            Network::address(Host::ControlPlane, REGISTRY_PORT)
        )
    }

    /// Runs `docker ARGS`.
    pub fn cli(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(CLI);
        command.arg("--host").arg(format!("unix://{}", self.socket().display()));
        command.args(args);
        output_of(command)
    }

    /// Where dockerd keeps images and containers.
    pub(crate) fn data(network: &Network) -> PathBuf {
        network.folder().join("docker/data")
    }

    /// The image that follows the application's: the same with a layer of 32 MB more.
    pub fn next_image(&self) -> String {
        self.image().replace(":latest", ":next")
    }

    /// Pushes the next image and forgets it.
    pub fn publish_next(&self) -> Result<()> {
        let root = self.folder.with_file_name("image");
        fs::write(root.join("more"), vec![7; 32 << 20])?;
        self.publish(&pack(&root, root.with_extension("next.tar"))?, &self.next_image())
    }

    /// Leaves dockerd no room; the file that has it.
    pub fn fill_disk(&self) -> Result<PathBuf> {
        let full = self.folder.join("data/full");
        let mut file = fs::File::create(&full)?;
        while file.write_all(&[0; 1 << 16]).is_ok() {}
        Ok(full)
    }

    /// Has the kernel kill a container for want of memory, whose limit somebody else in its control group exceeds.
    pub fn run_out_of_memory(&self, container: &str) -> Result<()> {
        let pid = self.pid_of(container)?;
        fs::write(format!("/proc/{pid}/oom_score_adj"), "1000")?;
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let group = own.lines().find_map(|line| match line.split_once(":memory:") {
            Some((_, path)) => Some(format!("/sys/fs/cgroup/memory{path}")),
            None => Some(format!("/sys/fs/cgroup{}", line.strip_prefix("0::")?)),
        });
        let mut hungry = Command::new("sh");
        hungry.args(["-c", r#"echo $$ >"$0/cgroup.procs" && exec tail /dev/zero"#]);
        // It is killed as well, after the container.
        hungry
            .arg(group.context("the container has no control group")?)
            .output()?;
        Ok(())
    }

    /// Has docker-compose make the project `compose`, of one container of the application's image.
    pub fn compose(&self, container: &str) -> Result<()> {
        let folder = self.folder.join("compose");
        fs::create_dir_all(&folder)?;
        let service = format!("{{ image: {:?}, container_name: {container:?} }}", self.image());
        let file = format!("version: \"2.4\"\nservices:\n  caller: {service}\n");
        fs::write(folder.join("docker-compose.yml"), file)?;
        let mut command = Command::new("docker-compose");
        command.args(["up", "--detach"]).current_dir(folder);
        command.env("DOCKER_HOST", format!("unix://{}", self.socket().display()));
        output_of(command).map(drop)
    }

    /// Writes daemon.json and has dockerd read it, as `systemctl reload docker` does.
    pub fn reload(&self, config: &str) -> Result<()> {
        fs::write(self.folder.join("daemon.json"), config)?;
        self.dockerd.signal(Signal::HUP)
    }

    /// The pid of a container's first process.
    pub fn pid_of(&self, container: &str) -> Result<u32> {
        let pid = self.cli(&["inspect", "--format", "{{.State.Pid}}", container])?;
        pid.trim().parse().context("docker gave no pid")
    }

    /// A program of this machine in a container's network, asking the container's resolver.
    pub fn beside(&self, container: &str, program: &Path) -> Result<Command> {
        let resolv_conf = self.cli(&["inspect", "--format", "{{.ResolvConfPath}}", container])?;
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.pid_of(container)?));
        command.args(["unshare", "--mount", "sh", "-c"]);
        command.arg(r#"mount --bind "$0" /etc/resolv.conf && exec "$@""#);
        command.arg(resolv_conf.trim()).arg(program);
        Ok(command)
    }

    fn publish(&self, tar: &Path, image: &str) -> Result<()> {
        let entrypoint = r#"ENTRYPOINT ["/productcatalog"]"#;
        self.cli(&["import", "--change", entrypoint, &tar.to_string_lossy(), image])?;
        self.cli(&["push", "--quiet", image])?;
        self.cli(&["rmi", image]).map(drop)
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It takes its containers with it; the network's sweep has what it leaves.
        let _ = self.dockerd.signal(Signal::TERM);
        let _ = self.dockerd.wait(Duration::from_secs(20));
    }
}

fn start_dockerd(network: &Network, folder: &Path) -> Result<Process> {
    let inside = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let args = [
        ("--data-root", inside("data")),
        ("--exec-root", inside("exec")),
        ("--pidfile", inside("pid")),
        ("--host", format!("unix://{}", inside("docker.sock"))),
        // So that the machine's own is not read.
        ("--config-file", inside("daemon.json")),
        (
            "--insecure-registry",
            Network::address(Host::ControlPlane, REGISTRY_PORT),
        ),
        // By this the sweep knows its containers, and systemd needs to know nothing of them.
        ("--exec-opt", "native.cgroupdriver=cgroupfs".to_owned()),
        ("--cgroup-parent", format!("/{}", network.id())),
        ("--shutdown-timeout", "5".to_owned()),
    ];
    let args: Vec<&str> = args.iter().flat_map(|(flag, value)| [*flag, value]).collect();
    network.spawn(Host::Vm, "dockerd", "dockerd", &args)
}

fn start_registry(network: &Network, folder: &Path) -> Result<Process> {
    let config = folder.join("registry.yml");
    let storage = folder.join("registry");
    let text = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 0.0.0.0:{REGISTRY_PORT}\n",
        storage.display()
    );
    fs::write(&config, text)?;
    network.spawn(
        Host::ControlPlane,
        "registry",
        "docker-registry",
        &["serve", &config.to_string_lossy()],
    )
}

/// The application as the content of an image: stripped, with the libraries it is linked to, and nothing else.
pub fn image_tar(folder: &Path) -> Result<PathBuf> {
    let root = folder.join("image");
    fs::create_dir_all(&root)?;
    let program = programs::productcatalog()?;
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(root.join("productcatalog")).arg(&program);
    output_of(strip)?;
    let mut ldd = Command::new("ldd");
    ldd.arg(&program);
    let libraries = output_of(ldd)?;
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap_or(&root))?;
        fs::copy(library, &to).with_context(|| format!("failed to copy {library}"))?;
    }
    pack(&root, folder.join("image.tar"))
}

/// All that is in `root`, as the tar archive `to`.
pub(crate) fn pack(root: &Path, to: PathBuf) -> Result<PathBuf> {
    let mut pack = Command::new("tar");
    pack.arg("--create").arg("--file").arg(&to);
    pack.arg("--directory").arg(root).arg(".");
    output_of(pack)?;
    ensure!(to.is_file(), "no {}", to.display());
    Ok(to)
}
