//! Envoy, the redirection and names.

use std::net::TcpListener;

use super::vm::{CLUSTER_ENV, CONFIG, command, fix};
use super::{Row, Vm};

const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";
const SSHD: &str = "/etc/ssh/sshd_config";
const CONTAINER: &str = "[workload.container]\nname = \"web\"\nimage = \"web:1\"\nports = [\"3550:80\"]\n";

pub(super) const ROWS: &[Row] = &[
    Row {
        code: "IVA502",
        trouble: take_the_admin_port,
        says: "or remove it: then it is a unix socket",
        follow: |vm, _| vm.take_out(CONFIG, "admin_port"),
    },
    Row {
        code: "IVA502",
        trouble: take_the_admin_port,
        says: "write another one into envoy.admin_port",
        follow: |vm, _| vm.set(&format!("envoy.admin_port = {}", free_port())),
    },
    Row {
        code: "IVA503",
        trouble: |vm| std::fs::remove_file(vm.at(ROOTS)).unwrap(),
        says: "apt-get install ca-certificates",
        follow: |vm, found| vm.run(fix(found)),
    },
    Row {
        code: "IVA503",
        trouble: |vm| vm.programs().kept.extend([ROOTS]),
        says: "chmod ",
        follow: |vm, found| vm.run(fix(found)),
    },
    Row {
        code: "IVA601",
        trouble: |vm| vm.configure("[intercept]\nbackend = \"none\"\n"),
        says: "set intercept.backend = \"auto\"",
        follow: |vm, found| vm.set(fix(found).split_once("set ").unwrap().1),
    },
    Row {
        code: "IVA601",
        trouble: |vm| vm.programs().installed.clear(),
        says: "install nftables or iptables",
        follow: |vm, _| vm.run("apt-get install nftables"),
    },
    Row {
        code: "IVA603",
        trouble: |vm| vm.edit(CLUSTER_ENV, "='3550'", "='3550,22'"),
        says: "take port 22 out of the WorkloadGroup",
        follow: |vm, _| vm.edit(CLUSTER_ENV, "='3550,22'", "='3550'"),
    },
    Row {
        code: "IVA603",
        trouble: |vm| vm.write(SSHD, "Port 3550\n"),
        says: "or have sshd listen elsewhere",
        follow: |vm, _| vm.edit(SSHD, "3550", "2222"),
    },
    Row {
        code: "IVA605",
        trouble: |vm| vm.write("/proc/sys/net/ipv4/tcp_fastopen", "3\n"),
        says: "sysctl -w",
        follow: |vm, found| vm.run(command(fix(found))),
    },
    Row {
        code: "IVA606",
        trouble: |vm| {
            vm.configure(CONTAINER);
            vm.programs().has_bridge_rules = false;
        },
        says: "modprobe br_netfilter && ",
        follow: |vm, found| vm.run(command(fix(found))),
    },
    Row {
        code: "IVA704",
        trouble: |vm| {
            std::fs::remove_file(vm.at("/etc/hosts")).unwrap();
            std::fs::create_dir(vm.at("/etc/hosts")).unwrap();
        },
        says: "make /etc/hosts a file of lines that root can read",
        follow: |vm, _| {
            std::fs::remove_dir(vm.at("/etc/hosts")).unwrap();
            vm.write("/etc/hosts", "127.0.0.1 localhost\n");
        },
    },
];

fn take_the_admin_port(vm: &mut Vm) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    vm.configure(&format!(
        "[envoy]\nadmin_port = {}\n",
        listener.local_addr().unwrap().port()
    ));
    vm.held.push(listener);
}

/// A port that nobody has, a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
