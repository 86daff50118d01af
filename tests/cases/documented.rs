//! Commands that docs/operate.md has an operator run for a bundle, as they are printed there.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::process::output_of;
use e2e::programs;
use e2e::vm::Settings;
use libtest_mimic::Trial;

use crate::stand_in_only;

pub(crate) fn trials() -> Vec<Trial> {
    let name = "a bundle that is signed as docs/operate.md says joins, and `config validate` refuses another";
    vec![stand_in_only(name, || {
        with_mesh(Kind::StandIn, Settings::default(), signed)
    })]
}

fn signed(mesh: &mut Mesh) -> Result<()> {
    let document = fs::read_to_string(programs::repository("docs/operate.md"))?;
    let mut blocks = document.split("```sh\n").filter_map(|block| block.split("```").next());
    let sign = blocks
        .find(|block| block.contains("sha256sum cluster.env") && block.contains("minisign -S"))
        .context("docs/operate.md signs nothing")?;
    let home = mesh.network.folder().join("home");
    fs::create_dir(&home)?;
    // Without a password, for which it would ask the terminal.
    shell(&home, &home, "minisign -G -W")?;
    let bundle = mesh.vm.bundle();
    shell(&home, &bundle, sign)?;

    let key = fs::read_to_string(home.join("minisign.pub"))?;
    let key = key.lines().nth(1).context("minisign.pub has no key")?;
    let path = bundle.display();
    mesh.vm.set_join(&format!(
        "[join.directory]\npath = \"{path}\"\npublic_key = \"{key}\"\n"
    ))?;
    judged(mesh, &["validate"], 0, "")?;
    judged(mesh, &["show", "-o", "json"], 0, key)?;
    let mut agent = mesh.join()?;
    mesh.expect_calls()?;
    agent.stop()?;

    let hosts = fs::read_to_string(bundle.join("hosts"))?;
    fs::write(bundle.join("hosts"), format!("{hosts}10.9.9.9 other.example\n"))?;
    judged(mesh, &["validate"], 78, "/hosts: ")
}

fn judged(mesh: &Mesh, verb: &[&str], code: i32, words: &str) -> Result<()> {
    let output = mesh.vm.agent(&mesh.network, &[&["config"], verb].concat())?;
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    let said = said.concat();
    ensure!(output.status.code() == Some(code) && said.contains(words), "{output:?}");
    Ok(())
}

fn shell(home: &Path, folder: &Path, script: &str) -> Result<()> {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(folder).env("HOME", home);
    output_of(shell).map(drop)
}
