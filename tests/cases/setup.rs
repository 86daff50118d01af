//! tests/setup and packaging/setup on a new machine: whatever is called is there afterwards, and the owner's services are
//! as they were.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::bare::Bare;
use e2e::{booted, called};
use libtest_mimic::Trial;

use crate::told;

pub(crate) fn trials() -> Vec<Trial> {
    let name = "setup: a bare Debian is given every program that is called, and keeps its services";
    // One after the other: the first one makes the Debian that both are laid over.
    vec![Trial::test(name, || told(every_program().and_then(|()| units_stay())))]
}

/// The machine's units, by a systemctl and an apt-get of ours: installing has packages enable their own, as Debian's do.
const UNITS: &str = "units";
const SYSTEMCTL: &str = r#"#!/bin/sh
verb=$1 && shift
[ "$verb" != list-unit-files ] || sed 's/$/ enabled enabled/' /units
[ "$verb" != disable ] || for unit; do sed -i "/^$unit\$/d" /units; done
"#;
const APT_GET: &str = r#"#!/bin/sh
case " $* " in *" install "*) printf '%s\n' etcd.service prometheus.service >>/units ;; esac
"#;
/// Units that the owner had, of which the tests use some.
const OWNERS: &str = "docker.service\ndocker.socket\nufw.service\nnginx.service\n";

/// Units that the owner had enabled stay so, and none of those that were installed is.
fn units_stay() -> Result<()> {
    let bare = Bare::new()?;
    let root = bare.written().join("upper");
    let programs = root.join("usr/local/sbin");
    fs::create_dir_all(&programs)?;
    for (name, script) in [("systemctl", SYSTEMCTL), ("apt-get", APT_GET)] {
        fs::write(programs.join(name), script)?;
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755))?;
    }
    let units = root.join(UNITS);
    fs::write(&units, OWNERS)?;
    bare.run(&["env", "ISTIO_VM_AGENT_ENVOY=/bin/true", "/src/tests/setup", "demo"])?;
    let after = fs::read_to_string(&units)?;
    ensure!(after == OWNERS, "other units are enabled afterwards:\n{after}");
    Ok(())
}

/// Prints those of its arguments that are no programs; what a shell has built in is none.
const LOOK_UP: &str = r#"for program; do which "$program" >/dev/null || echo "$program"; done"#;

fn every_program() -> Result<()> {
    let bare = Bare::new()?;
    for script in ["/src/tests/setup", "/src/packaging/setup"] {
        bare.run(&[script])
            .with_context(|| format!("{script} failed on a bare Debian"))?;
    }
    let called = called::programs()?;
    let mut look_up = vec!["sh", "-c", LOOK_UP, "sh"];
    look_up.extend(called.keys().map(String::as_str));
    let missing = bare.run(&look_up)?;

    let vm = booted::root_file_system("bookworm")?;
    let on_the_vm = |program: &str| {
        let folders = ["usr/sbin", "usr/bin", "usr/local/bin"].map(|folder| Path::new(&vm).join(folder));
        // An alternative's link leads nowhere from here.
        folders
            .iter()
            .any(|folder| folder.join(program).symlink_metadata().is_ok())
    };
    let mut told = String::new();
    for program in missing.lines() {
        let callers = called.get(program).context("it was not asked for")?;
        let fails = callers
            .here
            .iter()
            .chain(callers.there.iter().filter(|_| !on_the_vm(program)));
        told.extend(fails.map(|caller| format!("\n{program}, which {caller} calls")));
    }
    ensure!(
        told.is_empty(),
        "neither tests/setup nor packaging/setup installs{told}"
    );
    let envoy = bare.written().join("upper/root/.cache/istio-vm-agent/envoy/_bin/envoy");
    ensure!(envoy.is_file(), "tests/setup got no Envoy");
    Ok(())
}
