//! Where the programs are.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

use crate::process::output_of;

/// Envoy: $ISTIO_VM_AGENT_ENVOY, else where tests/setup puts it.
pub fn envoy() -> Result<PathBuf> {
    set_up("ISTIO_VM_AGENT_ENVOY", "envoy/_bin/envoy")
}

/// Kubernetes' API server: $ISTIO_VM_AGENT_KUBE_APISERVER, else where tests/setup puts it.
pub(crate) fn kube_apiserver() -> Result<PathBuf> {
    set_up("ISTIO_VM_AGENT_KUBE_APISERVER", "kube-apiserver")
}

/// Puts Envoy where its own user can execute it; a home folder is not.
pub(crate) fn install_envoy(at: &Path) -> Result<()> {
    let from = envoy()?;
    // One that runs can't be written over.
    let _ = fs::remove_file(at);
    fs::hard_link(&from, at)
        .or_else(|_| fs::copy(&from, at).map(drop))
        .with_context(|| format!("failed to put {} to {}", from.display(), at.display()))
}

/// The agent under test; built by `cargo build -p istio-vm-agent`.
pub fn agent() -> Result<PathBuf> {
    built("istio-vm-agent")
}

/// The operator's program; built by `cargo build -p istio-vm-ctl`.
pub fn ctl() -> Result<PathBuf> {
    built("istio-vm-ctl")
}

/// The package, which `make deb` makes.
pub fn package() -> Result<PathBuf> {
    package_of("istio-vm-agent")
}

/// The operator's, which `make deb` makes, too.
pub fn package_of_ctl() -> Result<PathBuf> {
    package_of("istio-vm-ctl")
}

fn package_of(program: &str) -> Result<PathBuf> {
    let target = output_of(Command::new(repository("packaging/target")))?;
    let folder = Path::new(target.trim_end()).join("deb");
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let files = fs::read_dir(&folder).into_iter().flatten().flatten();
    let is_its = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(&format!("{program}_")) && name.ends_with(&format!("_{architecture}.deb"))
    };
    files
        .map(|file| file.path())
        .filter(is_its)
        .max()
        .with_context(|| format!("no package in {}: run `make deb`", folder.display()))
}

/// The package under another version number, and with another program where one is given.
pub fn package_as(version: &str, program: Option<&str>, to: &Path) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--raw-extract").arg(package()?).arg(folder.path());
    output_of(unpack)?;
    let control = folder.path().join("DEBIAN/control");
    let text = fs::read_to_string(&control)?;
    let lines = text.lines().map(|line| match line.starts_with("Version: ") {
        true => format!("Version: {version}\n"),
        false => format!("{line}\n"),
    });
    fs::write(&control, lines.collect::<String>())?;
    if let Some(program) = program {
        fs::write(folder.path().join("usr/bin/istio-vm-agent"), program)?;
    }
    let mut pack = Command::new("dpkg-deb");
    // As fast as it goes: it is read once.
    pack.args(["--root-owner-group", "-Znone", "--build"])
        .arg(folder.path())
        .arg(to);
    output_of(pack).map(drop)
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The application of the cases.
pub fn productcatalog() -> Result<PathBuf> {
    built("productcatalog")
}

/// Stand-in for Istio's own agent.
pub fn pilot_agent() -> Result<PathBuf> {
    built("pilot-agent")
}

/// Stand-in for Envoy.
pub(crate) fn envoy_stand_in() -> Result<PathBuf> {
    built("envoy-stand-in")
}

/// The caller.
pub fn load() -> Result<PathBuf> {
    built("load")
}

/// `make demo`.
pub fn demo() -> Result<PathBuf> {
    built("demo")
}

/// A folder with Istio's own programs, when there is one: $LAB_BIN.
pub fn lab() -> Option<PathBuf> {
    std::env::var_os("LAB_BIN").map(PathBuf::from)
}

/// A number that this run has not used yet.
pub(crate) fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A program that tests/setup gets: where `variable` says, else in its cache.
fn set_up(variable: &str, name: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
            let cache = cache.or(home);
            let cache = cache.with_context(|| format!("neither {variable} nor HOME is set"))?;
            cache.join("istio-vm-agent").join(name)
        }
    };
    ensure!(
        path.is_file(),
        "no {}: run tests/setup, or set {variable}",
        path.display()
    );
    Ok(path)
}

/// Beside the program that runs: target/debug/NAME.
fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Test programs are in target/debug/deps.
    let folder = own.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let path = folder.unwrap_or_else(|| Path::new("/")).join(name);
    ensure!(
        path.is_file(),
        "no {}: run `cargo build --workspace --bins`",
        path.display()
    );
    Ok(path)
}
