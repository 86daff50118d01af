//! A real dockerd in network and mount namespaces of its own, with its own data, gone with the value.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::Context;
use kit::{PATIENCE, eventually_async, namespace};
use tempfile::TempDir;

/// The VM's address in the namespace.
pub(crate) const ADDRESS: &str = "10.99.0.2";
/// The answer of the image's web server.
pub(crate) const PAGE: &str = "hello from the container";

pub(crate) struct Dockerd {
    directory: TempDir,
    /// Keeps the namespaces while dockerd is down.
    namespaces: Child,
    daemon: Option<Child>,
}

impl Dockerd {
    pub(crate) async fn started(flags: &[&str]) -> Self {
        let dockerd = Self::isolated().await;
        dockerd.with_daemon(flags).await
    }

    /// One whose data is on a disk of so many bytes (tmpfs(5)).
    pub(crate) async fn started_on_disk(size: &str) -> Self {
        let dockerd = Self::isolated().await;
        let data = dockerd.path("data");
        std::fs::create_dir(&data).unwrap();
        let size = format!("size={size}");
        let mut mount = dockerd.inside("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&data).status();
        assert!(mounted.unwrap().success());
        dockerd.with_daemon(&[]).await
    }

    /// One of the user nobody, in a user namespace and a network of its own: what rootlesskit makes, but for a way out.
    pub(crate) async fn started_rootless() -> Self {
        // Of the machine's own it may write neither.
        const START: &str = "mount -t tmpfs tmpfs /run && mount -t tmpfs tmpfs /etc && exec dockerd \"$@\"";
        let mut dockerd = Self::isolated().await;
        let mut daemon = dockerd.inside("setpriv");
        let directory = dockerd.directory.path();
        daemon.env("HOME", directory);
        daemon.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        daemon.args(["unshare", "--user", "--map-root-user", "--net", "--mount"]);
        daemon.args(["sh", "-c", START, "dockerd"]);
        let given = command("chown").arg("nobody:nogroup").arg(directory).status();
        assert!(given.unwrap().success());
        let flags = ["--rootless", "--group=0", "--iptables=false", "--bridge=none"];
        dockerd.start_as(daemon, &flags).await;
        dockerd
    }

    /// Leaves no room on dockerd's disk.
    pub(crate) fn fill_disk(&self) {
        let filler = format!("of={}", self.path("data/filler").display());
        let filled = self.inside("dd").args(["if=/dev/zero", "bs=64K", &filler]).status();
        assert!(!filled.unwrap().success(), "the disk has no end");
    }

    pub(crate) fn empty_disk(&self) {
        let emptied = self.inside("rm").arg(self.path("data/filler")).status();
        assert!(emptied.unwrap().success());
    }

    /// Namespaces and network of a dockerd, without the daemon.
    async fn isolated() -> Self {
        assert!(rustix::process::geteuid().is_root(), "needs root: dockerd does");
        let namespaces = command("unshare")
            .args(["--net", "--mount", "sleep", "infinity"])
            .spawn()
            .expect("needs util-linux");
        let dockerd = Self {
            directory: tempfile::Builder::new().prefix("workload-").tempdir().unwrap(),
            namespaces,
            daemon: None,
        };
        dockerd
            .until("the namespaces", |dockerd| dockerd.has_own_network())
            .await;
        for step in [
            "link set lo up",
            "link add eth0 type veth peer name eth0-peer",
            &format!("addr add {ADDRESS}/24 dev eth0"),
            "link set eth0 up",
            "link set eth0-peer up",
        ] {
            let output = dockerd
                .inside("ip")
                .args(step.split(' '))
                .output()
                .expect("needs iproute2");
            assert!(output.status.success(), "ip {step}: {output:?}");
        }
        dockerd
    }

    async fn with_daemon(mut self, flags: &[&str]) -> Self {
        self.start(flags).await;
        self
    }

    fn has_own_network(&self) -> bool {
        let network = |pid: String| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        network(self.namespaces.id().to_string()) != network("self".to_owned())
    }

    pub(crate) async fn start(&mut self, flags: &[&str]) {
        self.start_as(self.inside("dockerd"), flags).await;
    }

    async fn start_as(&mut self, mut daemon: Command, flags: &[&str]) {
        let log = File::create(self.path("log")).unwrap();
        let daemon = daemon
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("pid"))
            .args([
                "--storage-driver",
                "vfs",
                "--host",
                &format!("unix://{}", self.socket()),
            ])
            .args(flags)
            .stderr(log)
            .spawn()
            .expect("needs util-linux");
        self.daemon = Some(daemon);
        self.until("dockerd (needs docker.io)", |dockerd| {
            dockerd.docker(&["version"]).status.success()
        })
        .await;
    }

    /// SIGTERM, as systemd stops it.
    pub(crate) fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            signal(&daemon, "TERM");
            daemon.wait().unwrap();
        }
    }

    /// Makes an image of a static busybox and one page.
    pub(crate) fn import(&self, image: &str) {
        self.import_as(image, "", &[]);
    }

    /// The same, with users and with instructions of a Dockerfile.
    pub(crate) fn import_as(&self, image: &str, users: &str, changes: &[&str]) {
        let busybox = "/bin/busybox";
        assert!(
            std::fs::exists(busybox).unwrap(),
            "needs busybox: apt-get install busybox-static"
        );
        let root = self.path("image");
        std::fs::create_dir_all(root.join("www")).unwrap();
        write_page(&root);
        std::fs::create_dir_all(root.join("etc")).unwrap();
        write(&root.join("etc/passwd"), users);
        std::fs::copy(busybox, root.join("busybox")).unwrap();
        let tar = self.path("image.tar");
        let made = command("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status()
            .unwrap();
        assert!(made.success());
        let mut import = vec!["import"];
        import.extend(changes.iter().flat_map(|change| ["--change", change]));
        import.extend([tar.to_str().unwrap(), image]);
        let imported = self.docker(&import);
        assert!(imported.status.success(), "{imported:?}");
    }

    pub(crate) fn docker(&self, arguments: &[&str]) -> Output {
        command("docker")
            .args(["--host", &format!("unix://{}", self.socket())])
            .args(arguments)
            .stderr(Stdio::piped())
            .output()
            .expect("needs docker.io")
    }

    /// A field of a container, by a template of `docker inspect`.
    pub(crate) fn inspect(&self, container: &str, template: &str) -> String {
        let output = self.docker(&["inspect", "--format", template, container]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Names of all containers.
    pub(crate) fn containers(&self) -> String {
        let output = self.docker(&["ps", "--all", "--format", "{{.Names}}"]);
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Waits until the container's page is served on the VM's address.
    pub(crate) async fn until_served(&self, port: u16) {
        let what = format!("the page on port {port}");
        self.until(&what, |dockerd| {
            let answer = dockerd.get_page(port).unwrap_or_default();
            answer.ends_with(PAGE)
        })
        .await;
    }

    /// Waits until something of a container is so.
    pub(crate) async fn until_container(&self, name: &str, reached: impl Fn(&Self) -> bool) {
        self.until(&format!("the container {name}"), reached).await;
    }

    fn get_page(&self, port: u16) -> std::io::Result<String> {
        self.within_network(|| {
            let mut stream = TcpStream::connect((ADDRESS, port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// Does something in dockerd's network.
    pub(crate) fn within_network<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let network = format!("/proc/{}/ns/net", self.namespaces.id());
        namespace::within(network.as_ref(), || Ok(work())).unwrap()
    }

    pub(crate) async fn until(&self, what: &str, reached: impl Fn(&Self) -> bool) {
        let log = || std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let look = || reached(self).then_some(()).with_context(log);
        eventually_async(what, PATIENCE, look).await.unwrap();
    }

    pub(crate) fn socket(&self) -> String {
        self.path("docker.sock").to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn inside(&self, program: &str) -> Command {
        let mut inside = command("nsenter");
        let namespaces = self.namespaces.id().to_string();
        inside.args(["--net", "--mount", "--target", &namespaces, program]);
        inside
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // With live-restore they outlive dockerd.
        let left = self.containers();
        for container in left.lines() {
            self.docker(&["rm", "--force", container]);
        }
        self.stop();
        signal(&self.namespaces, "KILL");
        self.namespaces.wait().unwrap();
    }
}

fn write_page(root: &Path) {
    write(&root.join("www/index.html"), PAGE);
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

fn signal(process: &Child, signal: &str) {
    let sent = command("kill")
        .args(["-s", signal, &process.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stderr(Stdio::null()).stdin(Stdio::null());
    command
}
