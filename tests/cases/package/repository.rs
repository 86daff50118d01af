//! The signed apt repository of packaging/repo, as packaging/cloud-init/apt-repository.yaml has a VM use it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;
use e2e::network::{Host, Network};
use e2e::process::output_of;
use e2e::programs;
use e2e::web::{WebServer, folder};

use super::cloud_init::{self, example};

const PORT: u16 = 8081;
const KEY: &str = "/etc/apt/keyrings/istio-vm-agent.asc";
const INDEX: &str = "dists/stable/main/binary-amd64/Packages";

pub(super) fn install_from(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    let work = mesh.network.folder();
    let made = make(work, "ours")?;
    let others = make(work, "others")?;
    let address = Network::address(Host::ControlPlane, PORT).parse()?;
    let served = work.join("served");
    let _server = WebServer::start(&mesh.network, Host::ControlPlane, address, None, folder(&served))?;
    fs::create_dir_all(vm.path("/etc/apt/keyrings"))?;
    fs::write(
        vm.path("/etc/apt/sources.list.d/istio-vm-agent.list"),
        source(&format!("http://{address}"))?,
    )?;
    let package = package_in(&made)?;

    serve(vm, &made, &served)?;
    fs::copy(others.join("istio-vm-agent.asc"), vm.path(KEY))?;
    expect_refusal(vm, "another key", "NO_PUBKEY")?;
    serve(vm, &made, &served)?;
    change(&served.join(INDEX))?;
    change(&served.join(INDEX).with_extension("gz"))?;
    for index in fs::read_dir(served.join(INDEX).with_file_name("by-hash/SHA256"))? {
        change(&index?.path())?;
    }
    expect_refusal(vm, "another index", "Hash Sum mismatch")?;
    serve(vm, &made, &served)?;
    change(&served.join(package))?;
    expect_refusal(vm, "another package", "Hash Sum mismatch")?;

    serve(vm, &made, &served)?;
    let said = install(vm)?;
    ensure!(vm.path("/usr/bin/istio-vm-agent").exists(), "{said}");
    vm.run(&["istio-vm-agent", "--version"])?;

    serve(vm, &made, &served)?;
    by_cloud_init(vm, &format!("http://{address}"), &made.join("istio-vm-agent.asc"))
}

/// Boots the example on a VM that has neither the package, nor the repository and its key, nor gpg.
fn by_cloud_init(vm: &mut Booted, url: &str, key: &Path) -> Result<()> {
    vm.run(&["apt-get", "purge", "--yes", "istio-vm-agent"])?;
    vm.run(&[
        "rm",
        "--force",
        "/etc/apt/sources.list.d/istio-vm-agent.list",
        KEY,
        "/usr/bin/gpg",
    ])?;
    let log = cloud_init::first_boot(vm, &user_data(url, &fs::read_to_string(key)?)?)?;
    ensure!(vm.path("/usr/bin/istio-vm-agent").exists(), "{log}");
    Ok(())
}

/// The example's repository, key and packages, but for what this VM has not: a bundle, and Debian's mirror.
fn user_data(url: &str, key: &str) -> Result<String> {
    let text = example("apt-repository.yaml")?;
    let (before, rest) = text
        .split_once("  - path: /etc/istio-vm-agent/config.toml\n")
        .context("no configuration in it")?;
    let (_, after) = rest.split_once("package_update").context("no packages in it")?;
    let (before, placeholder) = before.split_once("      -----BEGIN").context("no key in it")?;
    ensure!(
        placeholder.ends_with("-----END PGP PUBLIC KEY BLOCK-----\n"),
        "more than a key"
    );
    let key: String = key.lines().map(|line| format!("      {line}\n")).collect();
    let ours = format!("{before}{key}\npackage_update{after}")
        .replace("https://packages.example.com/istio-vm-agent", url)
        .replace("apt:\n", "apt:\n  preserve_sources_list: true\n")
        .replace("  - docker.io\n", "");
    Ok(ours)
}

/// A repository of the package, signed with a key made for it.
fn make(work: &Path, name: &str) -> Result<PathBuf> {
    let (home, key, to) = (
        work.join(format!("{name}.gpg")),
        work.join(format!("{name}.key")),
        work.join(name),
    );
    fs::create_dir_all(&home)?;
    let gpg = |args: &[&str]| {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir")
            .arg(&home)
            .args(["--batch", "--quiet", "--passphrase", ""]);
        gpg.args(args);
        output_of(gpg)
    };
    gpg(&["--quick-generate-key", name, "rsa3072", "sign", "never"])?;
    fs::write(&key, gpg(&["--armor", "--export-secret-keys"])?)?;
    let mut agent = Command::new("gpgconf");
    agent.arg("--homedir").arg(&home).args(["--kill", "all"]);
    output_of(agent)?;
    let mut make = Command::new(programs::repository("packaging/repo"));
    make.arg(&key).arg(&to);
    output_of(make)?;
    Ok(to)
}

/// The example's line of sources.list, with what the operator puts in its place.
fn source(url: &str) -> Result<String> {
    let text = example("apt-repository.yaml")?;
    let source = text.lines().find_map(|line| line.trim().strip_prefix("source: "));
    let source = source.context("apt-repository.yaml has no source")?;
    let ours = source.replace("https://packages.example.com/istio-vm-agent", url);
    ensure!(
        ours.contains(&format!("signed-by={KEY}")) && ours.contains(url),
        "another source now: {source}"
    );
    Ok(format!("{ours}\n"))
}

/// Serves the whole repository, and gives the VM its key; nothing is left of what was there before.
fn serve(vm: &Booted, made: &Path, served: &Path) -> Result<()> {
    let _ = fs::remove_dir_all(served);
    let mut copy = Command::new("cp");
    copy.arg("--recursive").arg(made).arg(served);
    output_of(copy)?;
    fs::copy(made.join("istio-vm-agent.asc"), vm.path(KEY))?;
    vm.run(&["sh", "-c", "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"])
        .map(drop)
}

fn package_in(made: &Path) -> Result<String> {
    let index = fs::read_to_string(made.join(INDEX))?;
    let name = index.lines().find_map(|line| line.strip_prefix("Filename: "));
    name.map(str::to_owned)
        .context("the repository has no package for this machine")
}

/// Turns the last bit of a file.
fn change(file: &Path) -> Result<()> {
    let mut bytes = fs::read(file)?;
    *bytes.last_mut().context("it is empty")? ^= 1;
    fs::write(file, bytes)?;
    Ok(())
}

fn expect_refusal(vm: &Booted, what: &str, reason: &str) -> Result<()> {
    let said = install(vm)?;
    ensure!(said.contains(reason), "with {what}: {said}");
    ensure!(
        !vm.path("/usr/bin/istio-vm-agent").exists(),
        "with {what} it was installed: {said}"
    );
    Ok(())
}

/// As cloud-init does; what apt said.
fn install(vm: &Booted) -> Result<String> {
    let script = "apt-get update; apt-get install --yes --no-install-recommends istio-vm-agent";
    let output = vm.command(&["sh", "-c", script])?.output()?;
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}
