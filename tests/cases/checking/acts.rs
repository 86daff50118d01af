//! A fix that takes another user, another disk, another token or another Envoy leads out of the trouble.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use e2e::istiod::TokenClaims;
use e2e::mesh::Mesh;
use e2e::network::{EtcView, Host};
use e2e::{bundle, programs};
use serde_json::Value;

use super::commands::{amiss, fix, shell};
use super::findings;

/// A trouble, and an operator's act by the words of its fix.
struct Act {
    code: &'static str,
    trouble: fn(&mut Mesh) -> Result<()>,
    words: &'static str,
    follow: fn(&mut Mesh, &str) -> Result<()>,
}

const ACTS: &[Act] = &[
    Act {
        code: "IVA105",
        trouble: |mesh| shell(mesh, "head -c 20M /dev/zero >$STATE/full"),
        words: "make room in the file system of",
        follow: |mesh, fix| {
            let place = fix
                .split("file system of ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            shell(mesh, &format!("rm {}/full", place.context("no place")?))
        },
    },
    Act {
        code: "IVA303",
        trouble: |mesh| {
            let claims = TokenClaims::of_service_account("onlineboutique", "cartservice");
            bundle::write(&mesh.vm.bundle(), mesh.control_plane.stand_in()?, &claims, true)
        },
        words: "a token of this group's service account",
        follow: |mesh, _| mesh.write_bundle(),
    },
    Act {
        code: "IVA304",
        trouble: |mesh| {
            mesh.control_plane.stand_in()?.set_version("1.34.0");
            Ok(())
        },
        words: "take an Envoy 1.",
        follow: |mesh, fix| {
            let release = fix.split("an Envoy ").nth(1).and_then(|rest| rest.split(',').next());
            let version = release.context("no version")?;
            // A link to the one that others run.
            fs::remove_file(mesh.vm.envoy())?;
            let script = format!("#!/bin/sh\necho 'envoy  version: 0/{version}.0/Clean/RELEASE/BoringSSL'\n");
            fs::write(mesh.vm.envoy(), script)?;
            Ok(fs::set_permissions(mesh.vm.envoy(), fs::Permissions::from_mode(0o755))?)
        },
    },
];

pub(super) fn lead_out(mesh: &mut Mesh) -> Result<()> {
    mesh.vm.give_the_state_a_disk()?;
    for Act {
        code,
        trouble,
        words,
        follow,
    } in ACTS
    {
        ensure!(amiss(mesh, code)?.is_empty(), "{code} is amiss before");
        trouble(mesh)?;
        let found = amiss(mesh, code)?;
        let told = found.first().with_context(|| format!("{code} says nothing"))?;
        ensure!(fix(told)?.contains(words), "{found:?}");
        follow(mesh, fix(told)?)?;
        let after = amiss(mesh, code)?;
        ensure!(after.is_empty(), "{code}, and its fix followed: {after:?}");
    }
    runs_as_root(mesh)
}

/// The command that it says, without the `sudo` which nobody needs who is root.
fn runs_as_root(mesh: &Mesh) -> Result<()> {
    const CODE: [&str; 5] = ["check", "--only", "IVA101", "--output", "json"];
    let check = |by: &[&str], arguments: &[&str]| -> Result<Value> {
        let mut command = mesh.network.command(Host::Vm, EtcView::Plain, "setpriv");
        command.args(by).arg(programs::agent()?).args(arguments);
        findings(&command.output()?)
    };
    let denied = check(&["--reuid=65534", "--regid=65534", "--clear-groups"], &CODE)?;
    let said = fix(&denied[0])?;
    let command = said
        .strip_prefix("run as root: sudo istio-vm-agent ")
        .with_context(|| said.to_owned())?;
    let arguments: Vec<&str> = command.split(' ').collect();
    let root = check(&[], &arguments)?;
    ensure!(root[0]["level"] == "ok", "{root}");

    let bounded = check(&["--bounding-set=-net_admin", "--inh-caps=-net_admin"], &CODE)?;
    let said = fix(&bounded[0])?;
    ensure!(said.contains("CapabilityBoundingSet=CAP_NET_ADMIN"), "{said}");
    Ok(())
}
