//! Envoy.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::mesh::Mesh;
use e2e::vm::Agent;
use e2e::{PATIENCE, eventually};
use rustix::process::{Signal, kill_process};

use super::{Cause, command};

/// The last words of an Envoy that ends.
const LAST_WORDS: &str = "no such symbol";

const CAUSES: &[Cause] = &[
    Cause {
        codes: &["envoy-down", "rules-open"],
        trouble: |mesh, _| {
            let envoy = mesh.vm.envoy_pid(&mesh.network)?;
            break_envoy(mesh)?;
            Ok(kill_process(envoy, Signal::KILL)?)
        },
        says: "journalctl -u istio-vm-agent TARGET=envoy",
        act: |mesh, agent, _| {
            ensure!(agent.output().contains(LAST_WORDS), "no last words of Envoy's");
            mend_envoy(mesh)
        },
    },
    Cause {
        codes: &["envoy-successor"],
        trouble: |mesh, _| {
            break_envoy(mesh)?;
            let file = mesh.vm.bundle().join("cluster.env");
            let text = fs::read_to_string(&file)?;
            Ok(fs::write(
                file,
                text.replace(r#"revision":"latest""#, r#"revision":"next""#),
            )?)
        },
        says: LAST_WORDS,
        act: |mesh, _, told| {
            mend_envoy(mesh)?;
            command(told, "systemctl reload istio-vm-agent")?;
            reload(mesh)
        },
    },
    Cause {
        codes: &["envoy-stream"],
        trouble: lock_envoy_out,
        says: "journalctl -u istio-vm-agent TARGET=envoy",
        act: |mesh, agent, _| {
            eventually("Envoy's reason", PATIENCE, || {
                ensure!(agent.output().contains("Permission_denied"), "it says none");
                Ok(())
            })?;
            allow(mesh, 0o660)
        },
    },
];

/// Of an Envoy that is fetched.
const FETCHED: &[Cause] = &[Cause {
    codes: &["envoy-earlier"],
    trouble: |mesh, _| {
        let config = fs::read_to_string(mesh.vm.config())?;
        let (before, pin) = config.split_once("@sha256:").context("no pin")?;
        fs::rename(mesh.vm.config(), mesh.vm.config().with_extension("kept"))?;
        fs::write(mesh.vm.config(), format!("{before}@sha256:00000000{}", &pin[8..]))?;
        reload(mesh)
    },
    says: "127.0.0.1:5002/istio/proxyv2:1@sha256:00000000",
    act: |mesh, _, told| {
        fs::rename(mesh.vm.config().with_extension("kept"), mesh.vm.config())?;
        command(told, "systemctl reload istio-vm-agent")?;
        reload(mesh)
    },
}];

pub(super) fn take_away_of_a_fetched_one(mesh: &mut Mesh) -> Result<()> {
    super::take_away(mesh, FETCHED)
}

pub(super) fn take_away(mesh: &mut Mesh) -> Result<()> {
    let text = fs::read_to_string(mesh.vm.config())?;
    let open = "on_envoy_down = { inbound = \"open\", outbound = \"open\" }";
    fs::write(
        mesh.vm.config(),
        text.replace("[intercept]\n", &format!("[intercept]\n{open}\n")),
    )?;
    super::take_away(mesh, CAUSES)
}

fn kept(mesh: &Mesh) -> PathBuf {
    mesh.vm.envoy().with_file_name("envoy.kept")
}

fn break_envoy(mesh: &Mesh) -> Result<()> {
    fs::rename(mesh.vm.envoy(), kept(mesh))?;
    fs::write(mesh.vm.envoy(), format!("#!/bin/sh\necho {LAST_WORDS} >&2\nexit 1\n"))?;
    Ok(fs::set_permissions(mesh.vm.envoy(), fs::Permissions::from_mode(0o755))?)
}

fn mend_envoy(mesh: &Mesh) -> Result<()> {
    Ok(fs::rename(kept(mesh), mesh.vm.envoy())?)
}

/// Has the next agent's socket be one that Envoy may not open; Envoy sleeps meanwhile, or would be there first.
fn lock_envoy_out(mesh: &mut Mesh, agent: &mut Agent) -> Result<()> {
    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    kill_process(envoy, Signal::STOP)?;
    agent.kill()?;
    fs::remove_file(socket(mesh))?;
    *agent = mesh.vm.start_agent(&mesh.network)?;
    eventually("the agent's socket, as it is meant to be", PATIENCE, || {
        let mode = fs::metadata(socket(mesh))?.permissions().mode() & 0o777;
        ensure!(mode == 0o660, "its mode is {mode:o}");
        allow(mesh, 0o600)
    })?;
    Ok(kill_process(envoy, Signal::CONT)?)
}

fn socket(mesh: &Mesh) -> PathBuf {
    mesh.vm.run_folder().join("xds.sock")
}

fn allow(mesh: &Mesh, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(socket(mesh), fs::Permissions::from_mode(mode))?)
}

/// As systemd does when it is told to.
fn reload(mesh: &Mesh) -> Result<()> {
    let output = mesh.vm.agent(&mesh.network, &["reload"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}
