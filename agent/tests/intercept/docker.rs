//! A real dockerd in the VM's namespace, and one container with a published port.
//!
//! The container only holds its network namespace open: the test serves and calls from inside it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::rig::{Rig, Who, address, eventually};

/// Docker's default bridge, and the first container on it.
pub(crate) const BRIDGE: &str = "172.17.0.1";
pub(crate) const BRIDGE6: &str = "fd00:d::1";

pub(crate) struct Docker {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Docker {
    pub(crate) fn start(rig: &Rig) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let daemon = Command::new("nsenter")
            // Not `ip netns exec`, whose /sys has no cgroups.
            .arg(format!("--net=/run/netns/{}", rig.vm))
            .args([
                "unshare",
                "-m",
                "dockerd",
                "--storage-driver",
                "vfs",
                "--ipv6",
                "--experimental",
                "--ip6tables",
            ])
            .args([
                "--fixed-cidr-v6",
                "fd00:d::/64",
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
            ])
            .args([
                "--pidfile",
                &at("pid"),
                "--host",
                &format!("unix://{}", at("docker.sock")),
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("dockerd: install docker.io");
        let docker = Self { daemon, directory };
        eventually("dockerd answers", Duration::from_secs(60), || docker.answers());
        docker
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("-H").arg(format!(
            "unix://{}",
            self.directory.path().join("docker.sock").display()
        ));
        command
    }

    fn answers(&self) -> bool {
        let version = self
            .docker()
            .arg("version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        version.is_ok_and(|status| status.success())
    }

    fn run(&self, arguments: &[&str]) -> String {
        let output = self.docker().args(arguments).output().unwrap();
        let log = || fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}\n{}",
            String::from_utf8_lossy(&output.stderr),
            log()
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// A container that publishes 3550 as 3550; gives its network namespace. Its files are this machine's /usr.
    pub(crate) fn container(&self) -> PathBuf {
        let root = self.directory.path().join("root");
        fs::create_dir_all(root.join("usr")).unwrap();
        for link in ["bin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link)).unwrap();
        }
        let archive = self.directory.path().join("root.tar").display().to_string();
        let tar = Command::new("tar")
            .args(["-C", &root.display().to_string(), "-cf", &archive, "."])
            .status();
        assert!(tar.unwrap().success());
        self.run(&["import", &archive, "holder"]);
        self.run(&[
            "run",
            "-d",
            "--name",
            "app",
            "-p",
            "3550:3550",
            "-v",
            "/usr:/usr:ro",
            "holder",
            "sleep",
            "infinity",
        ]);
        PathBuf::from(format!(
            "/proc/{}/ns/net",
            self.run(&["inspect", "-f", "{{.State.Pid}}", "app"])
        ))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.docker().args(["rm", "-f", "app"]).output();
        let _ = Command::new("kill").arg(self.daemon.id().to_string()).status();
        let _ = self.daemon.wait();
    }
}

/// Who answers a call from Envoy's source address for the application.
pub(crate) fn from_envoy(rig: &Rig, source: &str, ip: &str, port: u16) -> String {
    let (source, target): (SocketAddr, SocketAddr) = (address(source, 0), address(ip, port));
    rig.at(&rig.vm, Who::Envoy, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = if source.is_ipv4() {
                tokio::net::TcpSocket::new_v4().unwrap()
            } else {
                tokio::net::TcpSocket::new_v6().unwrap()
            };
            socket.bind(source).unwrap();
            let call = async {
                let mut stream = socket.connect(target).await?;
                let mut answer = String::new();
                tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await?;
                std::io::Result::Ok(answer)
            };
            match tokio::time::timeout(Duration::from_secs(5), call).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => error.kind().to_string(),
                Err(_) => "nobody".to_owned(),
            }
        })
    })
}
