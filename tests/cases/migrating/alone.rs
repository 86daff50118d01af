//! The program as it is released, in a root that has nothing but it, what it reads, and the devices of random bytes.

use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, ensure};
use e2e::network::{EtcView, Host};
use e2e::process::output_of;
use e2e::programs;

use super::world::World;

/// A name in the API server's certificate.
const NAME: &str = "kubernetes.default.svc";

pub(super) fn in_an_empty_root() -> Result<()> {
    let world = World::start()?;
    let root = world.network.folder().join("root");
    fs::create_dir_all(root.join("etc"))?;
    fs::create_dir_all(root.join("dev"))?;
    let mut copy = Command::new("cp");
    copy.args(["--archive", "/dev/random", "/dev/urandom"])
        .arg(root.join("dev"));
    output_of(copy)?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(programs::package_of_ctl()?).arg(&root);
    output_of(unpack)?;
    fs::remove_dir_all(root.join("usr/share"))?;

    let [one, two] = [0, 1].map(|at| world.clusters[at].kubeconfig("admin"));
    let (one, two) = (one?, two?);
    let address = Host::ControlPlane.ipv4();
    let config = fs::read_to_string(&one)?;
    fs::write(
        root.join("one"),
        config.replace(&format!("https://{address}:"), &format!("https://{NAME}:")),
    )?;
    fs::copy(&two, root.join("two"))?;
    let file = fs::read_to_string(world.file())?;
    let file = file.replace(&one.display().to_string(), "/one");
    fs::write(root.join("file"), file.replace(&two.display().to_string(), "/two"))?;

    // What the C library would load is not there.
    fs::write(
        root.join("etc/nsswitch.conf"),
        "hosts: mdns4_minimal [NOTFOUND=return] resolve dns\npasswd: systemd\n",
    )?;
    fs::write(root.join("etc/resolv.conf"), "nameserver 127.0.0.1\n")?;
    let bind = || UdpSocket::bind("127.0.0.1:53").context("a name server");
    let socket = world.network.within(Host::Pod, bind)?;
    thread::spawn(move || while answer(&socket, address).is_some() {});

    let mut command = world.network.command(Host::Pod, EtcView::Plain, "chroot");
    command
        .arg(&root)
        .args(["/usr/bin/istio-vm-ctl", "--file", "/file", "plan"]);
    let output = command.env_clear().output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// Answers one query of A with the address, and any other with none (RFC 1035, section 4.1).
fn answer(socket: &UdpSocket, address: Ipv4Addr) -> Option<()> {
    let mut query = [0; 512];
    let (length, from) = socket.recv_from(&mut query).ok()?;
    let name = query[12..length].iter().position(|byte| *byte == 0)?;
    let question = query.get(12..12 + name + 5)?;
    let is_a = question[name + 2] == 1;
    let mut answer = [
        &query[..2],
        &[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0],
        question,
    ]
    .concat();
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(address.octets());
    }
    socket.send_to(&answer, from).ok().map(drop)
}
