//! tests/setup and packaging/setup on a new machine: whatever is called is there afterwards.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::bare::Bare;
use e2e::{booted, called};
use libtest_mimic::Trial;

use crate::told;

pub(crate) fn trials() -> Vec<Trial> {
    let name = "setup: a bare Debian is given every program that is called";
    vec![Trial::test(name, || told(every_program()))]
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
