//! The application.

use std::net::TcpListener;

use tokio::net::TcpSocket;

use super::vm::{AGENT, CLUSTER_ENV, CONFIG, command, fix};
use super::{Row, Vm};

const MESH: &str = "/etc/istio-vm-agent/bundle/mesh.yaml";
const SHOP: &str = "shop.service";
/// One that is as the agent wants it.
const GOOD: [(&str, &str); 3] = [
    ("LoadState", "loaded"),
    ("UnitFileState", "disabled"),
    ("Before", AGENT),
];

pub(super) const ROWS: &[Row] = &[
    Row {
        code: "IVA802",
        trouble: |vm| contain(vm, "ports = [\"3550:80\"]"),
        says: "`docker pull web:1`",
        follow: |vm, found| vm.run(command(fix(found))),
    },
    Row {
        code: "IVA803",
        trouble: |vm| contain(vm, ""),
        says: "publish the application's in workload.container.ports, such as [\"3550:3550\"]",
        follow: |vm, found| {
            let ports = fix(found).split_once("such as ").unwrap().1;
            vm.set(&format!("workload.container.ports = {ports}"));
        },
    },
    Row {
        code: "IVA803",
        trouble: name_another_port,
        says: "publish it in workload.container.ports",
        follow: |vm, _| vm.set("workload.container.ports = [\"3550:80\", \"8080:81\"]"),
    },
    Row {
        code: "IVA803",
        trouble: name_another_port,
        says: "or take it out of the WorkloadGroup",
        follow: |vm, _| vm.edit(CLUSTER_ENV, "='3550,8080'", "='3550'"),
    },
    Row {
        code: "IVA803",
        trouble: |vm| {
            contain(vm, "ports = [\"3550:80\"]");
            vm.configure("[health.probe]\ntcp = { port = 80 }\n");
        },
        says: "name a published port of the VM in the probe",
        follow: |vm, _| vm.set("health.probe.tcp.port = 3550"),
    },
    Row {
        code: "IVA804",
        trouble: |vm| vm.write(MESH, &(vm.text(MESH) + COMMAND)),
        says: "or write health.allow_remote_exec = true",
        follow: |vm, found| vm.set(fix(found).split_once("write ").unwrap().1),
    },
    Row {
        code: "IVA804",
        trouble: |vm| vm.write(MESH, &(vm.text(MESH) + COMMAND)),
        says: "give a probe in [health.probe]",
        follow: |vm, _| vm.configure("[health.probe]\ntcp = { port = 3550 }\n"),
    },
    Row {
        code: "IVA805",
        trouble: name_a_silent_port,
        says: "start the application",
        follow: |vm, _| {
            let application = vm.silent.take().unwrap().listen(1).unwrap();
            vm.held.push(application.into_std().unwrap());
        },
    },
    Row {
        code: "IVA805",
        trouble: |vm| {
            vm.held.push(TcpListener::bind("0.0.0.0:0").unwrap());
            name_a_silent_port(vm);
        },
        says: "put the ports that it listens on into the WorkloadGroup",
        follow: |vm, found| {
            let silent = found.detail.split(' ').nth(4).unwrap();
            let port = vm.held[0].local_addr().unwrap().port();
            vm.edit(CLUSTER_ENV, &format!("='{silent}'"), &format!("='{port}'"));
        },
    },
    Row {
        code: "IVA806",
        trouble: |vm| serve(vm, &[("LoadState", "not-found")]),
        says: "do what the line says, then `systemctl daemon-reload`",
        // Installs it.
        follow: |vm, found| {
            assert!(found.detail.contains("install it"), "{found:?}");
            vm.unit(SHOP, &GOOD);
            vm.run(command(fix(found)));
        },
    },
    Row {
        code: "IVA806",
        trouble: |vm| serve(vm, &[("LoadState", "masked"), ("UnitFileState", "masked")]),
        says: "do what the line says, then `systemctl daemon-reload`",
        follow: |vm, found| {
            vm.run(command(&found.detail));
            vm.run(command(fix(found)));
        },
    },
    Row {
        code: "IVA806",
        trouble: |vm| serve(vm, &[("After", AGENT)]),
        says: "take After=istio-vm-agent.service out of it: `systemctl edit --full shop.service`",
        follow: |vm, _| vm.unit(SHOP, &[("After", "")]),
    },
    Row {
        code: "IVA806",
        trouble: |vm| serve(vm, &[("UnitFileState", "enabled")]),
        says: "`systemctl disable shop.service`",
        follow: |vm, found| vm.run(command(fix(found))),
    },
    Row {
        code: "IVA806",
        trouble: |vm| serve(vm, &[("Before", "")]),
        says: "put Before=istio-vm-agent.service into its [Unit], by `systemctl edit shop.service`",
        follow: |vm, _| vm.unit(SHOP, &[("Before", AGENT)]),
    },
    Row {
        code: "IVA807",
        trouble: |vm| {
            contain(vm, "secrets = [\"/etc/key\"]");
            vm.write("/etc/key", "secret");
            vm.run("chmod 0644 /etc/key");
        },
        says: "chmod 0600 /etc/key",
        follow: |vm, found| vm.run(fix(found)),
    },
    Row {
        code: "IVA807",
        trouble: |vm| contain(vm, "env_files = [\"/etc/none.env\"]"),
        says: "or take it out of that key",
        follow: |vm, _| vm.take_out(CONFIG, "none.env"),
    },
];

/// The probe of a WorkloadGroup, in the bundle's defaultConfig.
const COMMAND: &str = "  readinessProbe:\n    exec:\n      command: [\"true\"]\n";

/// Has the application be a container, with these keys beside.
fn contain(vm: &Vm, keys: &str) {
    let socket = vm.docker.socket();
    vm.configure(&format!(
        "[workload.container]\nname = \"web\"\nimage = \"web:1\"\ndocker_socket = {socket:?}\n{keys}\n"
    ));
}

/// Has the WorkloadGroup name a port beside that which the container publishes.
fn name_another_port(vm: &mut Vm) {
    contain(vm, "ports = [\"3550:80\"]");
    vm.edit(CLUSTER_ENV, "='3550'", "='3550,8080'");
}

/// Has the application be a service whose unit differs from a good one by these properties.
fn serve(vm: &Vm, properties: &[(&'static str, &'static str)]) {
    vm.configure(&format!("[workload.service]\nunit = {SHOP:?}\n"));
    vm.unit(SHOP, &GOOD);
    vm.unit(SHOP, properties);
}

/// Has the WorkloadGroup name a port on which nothing listens.
fn name_a_silent_port(vm: &mut Vm) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    vm.edit(CLUSTER_ENV, "='3550'", &format!("='{port}'"));
    vm.silent = Some(socket);
}
