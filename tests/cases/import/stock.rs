//! Istio's own agent on a VM: the package istio-sidecar with the paths, modes and unit of the real one
//! (istio: tools/packaging), and what istio.io tells the operator to do with istioctl's files.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use anyhow::{Context, Result};
use e2e::booted::Booted;
use e2e::mesh::{Kind, Mesh};
use e2e::process::output_of;
use e2e::programs;

/// Unit of Istio's own agent.
pub(super) const UNIT: &str = "istio.service";
const PACKAGE: &str = "/root/istio-sidecar.deb";

/// Builds the package, and installs it.
pub(super) fn install(kind: Kind, mesh: &Mesh, vm: &Booted) -> Result<()> {
    let lab = || programs::lab().context("LAB_BIN is not set");
    let (agent, bootstrap) = match kind {
        Kind::Real => (
            lab()?.join("pilot-agent"),
            fs::read(lab()?.join("envoy_bootstrap.json"))?,
        ),
        Kind::StandIn => (programs::pilot_agent()?, b"{}\n".to_vec()),
    };
    let control = format!("{CONTROL}Architecture: {}\n", architecture());
    let tree = mesh.network.folder().join("istio-sidecar");
    let files: [(&str, u32, &[u8]); 7] = [
        ("DEBIAN/control", 0o644, control.as_bytes()),
        ("DEBIAN/conffiles", 0o644, CONFFILES.as_bytes()),
        ("DEBIAN/postinst", 0o755, POSTINST.as_bytes()),
        ("usr/local/bin/istio-start.sh", 0o755, START.as_bytes()),
        ("lib/systemd/system/istio.service", 0o644, SERVICE.as_bytes()),
        ("var/lib/istio/envoy/sidecar.env", 0o644, b"# Nothing is set.\n"),
        ("var/lib/istio/envoy/envoy_bootstrap_tmpl.json", 0o644, &bootstrap),
    ];
    for (path, mode, text) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("no folder")?)?;
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for (name, from) in [("envoy", programs::envoy()?), ("pilot-agent", agent)] {
        symlink(&from, tree.join("usr/local/bin").join(name))?;
    }
    let mut pack = Command::new("sh");
    // The programs themselves, and as fast as it goes: it is read once.
    pack.args([
        "-ec",
        r#"cp -rL "$0" "$0.tree"; exec dpkg-deb --root-owner-group -Znone --build "$0.tree" "$1""#,
    ]);
    output_of({
        pack.arg(&tree).arg(vm.path(PACKAGE));
        pack
    })?;
    vm.run(&["apt-get", "install", "--yes", "--no-install-recommends", PACKAGE])?;
    vm.run(&["rm", PACKAGE]).map(drop)
}

/// Puts what stays to its place: what it was told.
pub(super) fn configure(kind: Kind, mesh: &Mesh, vm: &Booted) -> Result<()> {
    let told = match kind {
        Kind::Real => "",
        // What the stand-in of its agent does.
        Kind::StandIn => "ISTIO_INBOUND_INTERCEPTION_MODE=TPROXY\nISTIO_EXCLUDE_INTERFACES=not-istio-nic\n",
    };
    fs::write(
        vm.path("/var/lib/istio/envoy/sidecar.env"),
        format!("ISTIO_SVC_IP=10.200.0.3\nISTIO_LOG_DIR=/var/log/istio\n{told}"),
    )?;
    for (name, path) in [
        ("cluster.env", "/var/lib/istio/envoy/cluster.env"),
        ("mesh.yaml", "/var/lib/istio/config/mesh"),
    ] {
        fs::copy(mesh.vm.bundle().join(name), vm.path(path))?;
    }
    vm.run(&["chown", "--recursive", "istio-proxy", "/var/lib/istio"])
        .map(drop)
}

/// Gives it the secrets and the lines of /etc/hosts, and starts it for good.
pub(super) fn start(mesh: &Mesh, vm: &Booted) -> Result<()> {
    let hosts = fs::read_to_string(vm.path("/etc/hosts"))?;
    let lines = fs::read_to_string(mesh.vm.bundle().join("hosts"))?;
    fs::write(vm.path("/etc/hosts"), hosts + &lines)?;
    // /run is a file system of the VM's own.
    for (name, path) in [
        ("root-cert.pem", "/etc/certs/root-cert.pem"),
        ("istio-token", "/var/run/secrets/tokens/istio-token"),
    ] {
        let text = fs::read_to_string(mesh.vm.bundle().join(name))?;
        let script = r#"mkdir -p "$(dirname "$1")"; printf %s "$2" >"$1""#;
        vm.run(&["sh", "-ec", script, "-", path, &text])?;
    }
    vm.run(&["chown", "--recursive", "istio-proxy", "/etc/certs", "/var/run/secrets"])?;
    vm.run(&["systemctl", "enable", "--quiet", "--now", UNIT]).map(drop)
}

fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    }
}

/// The real one also depends on sudo, which the VM doesn't have.
const CONTROL: &str = "Package: istio-sidecar
Version: 1.0.0
Maintainer: nobody <nobody@example.com>
Description: Istio's own agent, for a test
Depends: iproute2, iptables, hostname
";

const CONFFILES: &str = "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json
/var/lib/istio/envoy/sidecar.env
";

/// A user of any free number, a link, folders, modes.
const POSTINST: &str = "#!/bin/sh
set -e
getent passwd istio-proxy >/dev/null || {
    groupadd --system istio-proxy
    useradd --system --gid istio-proxy --home-dir /var/lib/istio istio-proxy
}
[ -e /etc/istio ] || ln -s /var/lib/istio /etc/istio
mkdir -p /var/lib/istio/proxy /var/lib/istio/config /var/log/istio /etc/certs
touch /var/lib/istio/config/mesh
chown istio-proxy:istio-proxy /etc/certs /var/log/istio /var/lib/istio/envoy /var/lib/istio/config \\
    /var/lib/istio/config/mesh /var/lib/istio/proxy
chmod 2755 /usr/local/bin/envoy /usr/local/bin/pilot-agent
";

/// Start script of Istio's own agent, in short.
const START: &str = "#!/bin/sh
set -ea
. /var/lib/istio/envoy/sidecar.env
. /var/lib/istio/envoy/cluster.env
pilot-agent istio-iptables --cleanup-only
[ \"$1\" != clean ] || exit 0
pilot-agent istio-iptables
PROV_CERT=./etc/certs OUTPUT_CERTS=./etc/certs CA_ADDR=istiod.istio-system.svc:15012
INSTANCE_IP=$ISTIO_SVC_IP POD_NAME=$(hostname -s) POD_NAMESPACE=$ISTIO_NAMESPACE
PROXY_CONFIG='controlPlaneAuthPolicy: MUTUAL_TLS'
# Envoy opens /dev/stdout again, which as its own user it can do with a file of its own only.
exec setpriv --reuid istio-proxy --regid istio-proxy --clear-groups sh -c \\
    'exec pilot-agent proxy >>/var/log/istio/istio.log 2>&1'
";

const SERVICE: &str = "[Unit]
Description=Istio's own agent
StartLimitIntervalSec=0
[Service]
ExecStart=/usr/local/bin/istio-start.sh
ExecStartPre=+/usr/bin/install -d -o istio-proxy -m 0755 /var/run/secrets
ExecStopPost=/usr/local/bin/istio-start.sh clean
Restart=always
RestartSec=10
KillMode=mixed
TimeoutStopSec=30s
[Install]
WantedBy=multi-user.target
";
