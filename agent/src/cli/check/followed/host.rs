//! The machine itself, and systemd's units on it.

use super::Row;
use super::vm::{AGENT, CONFIG, command, fix};
use crate::config::PathsConfig;
use crate::upgrade;

const SANDBOX: [(&str, &str); 3] = [("LoadState", "loaded"), ("ProtectHome", "yes"), ("PrivateTmp", "no")];
const SERVES: [(&str, &str); 3] = [("ActiveState", "active"), ("SubState", "running"), ("MainPID", "7")];

pub(super) const ROWS: &[Row] = &[
    Row {
        code: "IVA102",
        trouble: |vm| vm.programs().is_synchronized = false,
        says: "timedatectl set-ntp true",
        follow: |vm, found| vm.run(command(fix(found))),
    },
    Row {
        code: "IVA104",
        trouble: |vm| {
            vm.unit(AGENT, &SANDBOX);
            std::fs::create_dir_all(vm.at("/home/ada")).unwrap();
            std::fs::rename(vm.at("/etc/istio-vm-agent/bundle"), vm.at("/home/ada/bundle")).unwrap();
            vm.set("join.directory.path = \"/home/ada/bundle\"");
        },
        says: "put it below /etc/istio-vm-agent, and that path into join.directory.path",
        follow: |vm, found| {
            let path = found.detail.split(' ').nth(1).unwrap();
            let key = fix(found).split(' ').next_back().unwrap();
            let place = format!("/etc/istio-vm-agent/{}", path.rsplit('/').next().unwrap());
            std::fs::rename(vm.at(path), vm.at(&place)).unwrap();
            vm.set(&format!("{key} = {place:?}"));
        },
    },
    Row {
        code: "IVA104",
        trouble: |vm| {
            vm.unit(AGENT, &SANDBOX);
            vm.configure("[paths]\nstate = \"/srv/state\"\n");
        },
        says: "remove [paths]",
        follow: |vm, _| {
            vm.take_out(CONFIG, "[paths]");
            vm.take_out(CONFIG, "/srv/state");
        },
    },
    Row {
        code: "IVA106",
        trouble: |vm| vm.write("/proc/sys/fs/nr_open", "65536\n"),
        says: "sysctl -w fs.nr_open=",
        follow: |vm, found| vm.run(command(fix(found))),
    },
    Row {
        code: "IVA109",
        trouble: |vm| {
            vm.unit("istio.service", &[("ActiveState", "active")]);
            vm.write("/lib/systemd/system/istio.service", "");
            vm.write("/etc/systemd/system/multi-user.target.wants/istio.service", "");
        },
        says: "`systemctl disable --now istio`",
        follow: |vm, found| vm.run(fix(found).split('`').nth(3).unwrap()),
    },
    Row {
        code: "IVA111",
        trouble: |vm| vm.unit(AGENT, &[("LoadState", "loaded"), ("UnitFileState", "disabled")]),
        says: "systemctl enable",
        follow: |vm, found| vm.run(fix(found)),
    },
    Row {
        code: "IVA111",
        trouble: |vm| vm.unit(AGENT, &[("LoadState", "loaded"), ("UnitFileState", "masked")]),
        says: "systemctl unmask",
        follow: |vm, found| vm.run(fix(found)),
    },
    Row {
        code: "IVA111",
        trouble: |vm| {
            vm.unit(
                AGENT,
                &[
                    ("LoadState", "loaded"),
                    ("UnitFileState", "enabled"),
                    ("NeedDaemonReload", "yes"),
                ],
            );
        },
        says: "systemctl daemon-reload",
        follow: |vm, found| {
            let commands = fix(found).split(", then ");
            commands.for_each(|command| vm.run(command));
        },
    },
    Row {
        code: "IVA113",
        trouble: |vm| {
            vm.unit(AGENT, &SERVES);
            install(vm, "1.0", "1.1");
            vm.edit(&record(), "\"trial\"", "\"rolled-back\"");
        },
        says: "`apt install istio-vm-agent=VERSION`",
        follow: |vm, _| install(vm, "1.1", "1.0"),
    },
];

/// Where the record of an upgrade is.
fn record() -> String {
    PathsConfig::default().upgrade().display().to_string()
}

/// Does as the package's preinst.
fn install(vm: &super::Vm, from: &str, to: &str) {
    let paths = PathsConfig::default();
    for folder in ["/usr/lib", "/usr/bin", "/lib/systemd/system", "/var/lib/istio-vm-agent"] {
        std::fs::create_dir_all(vm.at(folder)).unwrap();
    }
    vm.write("/usr/bin/istio-vm-agent", "");
    let kept = upgrade::keep(&vm.host, &paths, AGENT, CONFIG.as_ref(), from.to_owned(), to.to_owned());
    assert!(kept.unwrap(), "no agent serves");
}
