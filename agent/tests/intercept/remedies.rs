//! Remedies of `check`, followed to the letter, lead out of the trouble: on a VM with a network and an /etc of its own.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::installed::Installed;

const CONFIG: &str =
    "[join]\ndirectory = { path = \"/etc/istio-vm-agent/bundle\" }\n[network]\naddress = \"10.9.0.2\"\n";
const TOKEN: &str = "eyJhbGciOiJub25lIn0.e30.c2ln\n";

/// The way to follow a remedy.
enum Follow {
    /// It is a command; what comes after a comma is for the time after a reboot.
    Command,
    /// It says what to edit or to do, which is this; and holds these words.
    Edit(&'static str, &'static str),
    /// It says to start what serves on this port.
    Serve(u16),
}

/// Something wrong that `check` finds, made by a line of shell, and the way out.
struct Trouble {
    code: &'static str,
    made: &'static str,
    follow: Follow,
}

const fn command(code: &'static str, made: &'static str) -> Trouble {
    let follow = Follow::Command;
    Trouble { code, made, follow }
}

const fn edit(code: &'static str, made: &'static str, says: &'static str, line: &'static str) -> Trouble {
    let follow = Follow::Edit(says, line);
    Trouble { code, made, follow }
}

const TROUBLES: [Trouble; 18] = [
    command("IVA103", "chmod 0666 config.toml"),
    command("IVA103", "chown 54321 config.toml"),
    command("IVA103", "chmod 0777 ."),
    command("IVA103", "chmod 0644 bundle/istio-token"),
    command("IVA108", "sysctl -qw net.ipv4.ip_local_port_range='1024 65000'"),
    command(
        "IVA110",
        "sed -i '/^istio-proxy:/d' /etc/passwd /etc/group && groupadd -g 54322 istio-proxy && \
         useradd -u 54322 -g 54322 -M istio-proxy",
    ),
    edit(
        "IVA112",
        "touch state && printf '[paths]\\nstate = \"/etc/istio-vm-agent/state\"\\n' >>config.toml",
        "make /etc/istio-vm-agent/state a directory that root can write",
        "rm state && mkdir state",
    ),
    edit(
        "IVA201",
        "sed -i 's/^address/adress/' config.toml",
        "mend what it names",
        "sed -i 's/^adress/address/' config.toml",
    ),
    edit(
        "IVA202",
        "mv bundle/mesh.yaml .",
        "mend what it names",
        "mv mesh.yaml bundle",
    ),
    edit(
        "IVA502",
        "printf '[envoy]\\nadmin_port = 15000\\n' >>config.toml",
        "or remove it",
        "sed -i '/^admin_port/d' config.toml",
    ),
    edit(
        "IVA503",
        "mkdir -p /etc/ssl/certs && touch /etc/ssl/certs/ca-certificates.crt && chmod 0600 /etc/ssl/certs/ca-certificates.crt",
        "leave its files readable for all",
        "chmod 0644 /etc/ssl/certs/ca-certificates.crt",
    ),
    edit(
        "IVA601",
        "printf '[intercept]\\nbackend = \"none\"\\n' >>config.toml",
        "set intercept.backend = \"auto\"",
        "sed -i 's/^backend = .*/backend = \"auto\"/' config.toml",
    ),
    command("IVA605", "sysctl -qw net.ipv4.tcp_fastopen=3"),
    edit(
        "IVA701",
        "rm -f /etc/resolv.conf && touch /etc/resolv.conf",
        "write `nameserver ADDRESS` into /etc/resolv.conf",
        "echo 'nameserver 203.0.113.53' >>/etc/resolv.conf",
    ),
    command(
        "IVA702",
        "echo 'hosts: files resolve [!UNAVAIL=return] dns' >/etc/nsswitch.conf",
    ),
    edit(
        "IVA704",
        "mount --bind /etc/hosts /etc/hosts && mount -o remount,bind,ro /etc/hosts",
        "`findmnt -T /etc/hosts`",
        "umount /etc/hosts",
    ),
    Trouble {
        code: "IVA805",
        made: "true",
        follow: Follow::Serve(3550),
    },
    edit(
        "IVA803",
        "printf '[workload.container]\\nname = \"web\"\\nimage = \"web:1\"\\n' >>config.toml",
        "publish the application's in workload.container.ports, such as [\"3550:3550\"]",
        "echo 'ports = [\"3550:3550\"]' >>config.toml",
    ),
];

/// The level of what was found of a thing, the worst there is, and what to do about it.
fn found(vm: &Installed, code: &str) -> (String, String) {
    let program = env!("CARGO_BIN_EXE_istio-vm-agent");
    // It exits with something else than 0 where anything failed.
    let output = vm
        .shell(&format!("{program} check --only {code} -o json || true"))
        .unwrap();
    let document: Value = serde_json::from_str(&output).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let bad = findings.iter().find(|finding| finding["fix"].is_string());
    let finding = bad.or(findings.first()).unwrap_or_else(|| panic!("{code}: {document}"));
    let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    (text("level"), text("fix"))
}

fn follow(vm: &Installed, how: &Follow, fix: &str) {
    match how {
        Follow::Command => drop(vm.shell(fix.split(", and").next().unwrap()).unwrap()),
        Follow::Edit(says, line) => {
            assert!(fix.contains(says), "{fix}");
            vm.shell(&format!("cd /etc/istio-vm-agent && {line}")).unwrap();
        }
        Follow::Serve(port) => {
            assert!(fix.starts_with("start the application"), "{fix}");
            vm.rig.serve(&vm.rig.vm, "0.0.0.0", *port, "application");
        }
    }
}

#[test]
fn remedies_of_check_lead_out_of_the_trouble_when_they_are_followed() {
    let vm = Installed::new("remedies", "/etc");
    let folder = vm.folder.path().join("etc/istio-vm-agent");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vm-bundle");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("bundle")).unwrap();
    fs::write(folder.join("config.toml"), CONFIG).unwrap();
    for name in ["cluster.env", "mesh.yaml", "root-cert.pem", "hosts"] {
        fs::copy(golden.join(name), folder.join("bundle").join(name)).unwrap();
    }
    fs::write(folder.join("bundle/istio-token"), TOKEN).unwrap();
    vm.shell("chmod 0600 /etc/istio-vm-agent/bundle/istio-token && rm -f /etc/resolv.conf")
        .unwrap();
    vm.shell("echo 'nameserver 203.0.113.53' >/etc/resolv.conf").unwrap();
    vm.rig.serve(&vm.rig.vm, "127.0.0.1", 15000, "somebody");
    for Trouble {
        code,
        made,
        follow: how,
    } in &TROUBLES
    {
        vm.shell(&format!("cd /etc/istio-vm-agent && {made}")).unwrap();
        let (before, fix) = found(&vm, code);
        assert!(
            ["warning", "failed"].contains(&before.as_str()),
            "{code}, {made}: {before}"
        );
        follow(&vm, how, &fix);
        let (after, left) = found(&vm, code);
        assert_eq!(after, "ok", "{code}, {made}: after {fix:?}: {left}");
    }
}
