//! The files of the version before: further names of the same files, so that keeping them takes no room and no time.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::host::Host;

/// The program.
pub(super) const PROGRAM: &str = "/usr/bin/istio-vm-agent";
/// The directory of the package's units.
pub(super) const UNITS: &str = "/lib/systemd/system";
/// The directory of the kept files: in the file system of both, which a further name can't leave.
pub(super) const KEPT: &str = "/usr/lib/istio-vm-agent/former";

/// Keeps the version that is installed, in the place of any that was kept before.
pub(super) fn keep(host: &Host) -> Result<()> {
    let keeping = || {
        host.remove_directory(Path::new(KEPT))?;
        host.make_directory(Path::new("/usr/lib/istio-vm-agent"), 0o755, None)?;
        host.make_directory(Path::new(KEPT), 0o755, None)?;
        for (installed, kept) in pairs(host, Path::new(UNITS))? {
            host.link(&installed, &kept)?;
        }
        io::Result::Ok(())
    };
    keeping().context("failed to keep the version that is installed")
}

/// Puts the kept version in the place of the installed one, and takes the units away that it had not. May be done twice.
pub(super) fn restore(host: &Host) -> Result<()> {
    let restoring = || {
        for (installed, kept) in pairs(host, Path::new(KEPT))? {
            host.link(&kept, &installed)?;
        }
        for unit in newer_units(host)? {
            host.remove(&Path::new(UNITS).join(unit))?;
        }
        io::Result::Ok(())
    };
    restoring().context("failed to put the version before in its place")
}

/// The installed units that the kept version has not.
pub(super) fn newer_units(host: &Host) -> io::Result<Vec<String>> {
    let kept = units(host, Path::new(KEPT))?;
    let mut newer = units(host, Path::new(UNITS))?;
    newer.retain(|unit| !kept.contains(unit));
    Ok(newer)
}

/// Removes what is kept.
pub(super) fn forget(host: &Host) -> io::Result<()> {
    host.remove_directory(Path::new(KEPT))?;
    host.remove_empty_directory(Path::new("/usr/lib/istio-vm-agent"))
}

/// Each file's installed and kept name: the program, and the units that are in `directory`.
fn pairs(host: &Host, directory: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let kept = Path::new(KEPT);
    let mut pairs: Vec<_> = units(host, directory)?
        .into_iter()
        .map(|name| (Path::new(UNITS).join(&name), kept.join(name)))
        .collect();
    // Last: while it is missing, systemd does not start the unit that would run it.
    pairs.push((PROGRAM.into(), kept.join("istio-vm-agent")));
    Ok(pairs)
}

fn units(host: &Host, directory: &Path) -> io::Result<Vec<String>> {
    let mut units = host.names_in(directory)?;
    units.retain(|name| name.starts_with("istio-vm-agent") && name.ends_with(".service"));
    Ok(units)
}
