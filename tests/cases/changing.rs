//! Changes while the VM serves: of the operator's configuration, and the mesh.

use std::fs;

use anyhow::{Context, Result, bail, ensure};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::{Application, Settings};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{both, stand_in_only};

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::from(both("reload at 200 calls a second: none fails", |kind| {
        with_mesh(kind, Settings::default(), |mesh| reloaded(mesh))
    }));
    trials.extend(both(
        "other labels at 200 calls a second: another Envoy takes over, none fails",
        |kind| with_mesh(kind, Settings::default(), |mesh| relabelled(mesh)),
    ));
    trials.extend([
        stand_in_only("reload of a bad configuration: refused, and nothing changes", || {
            with_mesh(Kind::StandIn, Settings::default(), |mesh| refused(mesh))
        }),
        stand_in_only("reload without the container: it goes, the agent stays", || {
            let settings = Settings {
                application: Application::Container,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, |mesh| container_dropped(mesh))
        }),
        stand_in_only("a new bundle is taken up at 200 calls a second: none fails", || {
            with_mesh(Kind::StandIn, Settings::default(), |mesh| bundle_changed(mesh))
        }),
        stand_in_only("another probe in the bundle is the one that counts", || {
            with_mesh(Kind::StandIn, Settings::default(), |mesh| probe_changed(mesh))
        }),
    ]);
    trials
}

fn reloaded(mesh: &Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    let before = agent_of(mesh)?;
    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    let calling = mesh.start_calls(200)?;
    edit(mesh, "[intercept]", "[log]\nlevel = \"debug\"\n[intercept]")?;
    expect_reload(mesh)?;
    edit(mesh, "backend = \"auto\"", "backend = \"iptables\"")?;
    expect_reload(mesh)?;
    let status = e2e::eventually("the other rules", e2e::PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(status["interception"]["backend"] == "iptables", "{status}");
        Ok(status)
    })?;
    calling.stop()?.expect_all_answered()?;
    ensure!(status["agent"]["pid"] == before["pid"], "another process: {status}");
    ensure!(
        status["agent"]["since"] != before["since"],
        "the agent is as old as before: {status}"
    );
    ensure!(mesh.vm.envoy_pid(&mesh.network)? == envoy, "another Envoy");
    ensure!(agent.output().contains("DEBUG"), "no line of level debug");
    agent.stop()
}

fn refused(mesh: &Mesh) -> Result<()> {
    let agent = mesh.join()?;
    let before = agent_of(mesh)?;
    edit(mesh, "backend = \"auto\"", "backend = \"ebpf\"")?;
    let output = mesh.vm.agent(&mesh.network, &["reload", "-o", "json"])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(78), "{output:?}");
    let document: Value = serde_json::from_slice(&output.stdout)?;
    let key = document["errors"][0]["problem"].as_str().unwrap_or_default();
    ensure!(document["exit_code"] == 78 && key.contains("backend"), "{document}");
    ensure!(errors.contains("ebpf") && errors.contains("backend"), "{errors}");
    // Whoever signals the agent past `reload` is told in its log.
    agent.signal(rustix::process::Signal::HUP)?;
    e2e::eventually("both refusals in the log", e2e::PATIENCE, || {
        let told = agent.output().matches("the configuration stays as it was").count();
        ensure!(told == 2, "told {told} times");
        Ok(())
    })?;
    // `status` finds the agent by the configuration.
    edit(mesh, "backend = \"ebpf\"", "backend = \"auto\"")?;
    ensure!(agent_of(mesh)? == before, "the agent began again");
    let (status, _) = mesh.vm.status(&mesh.network)?;
    let (codes, told) = (&status["health"]["codes"], status["health"]["problems"].to_string());
    ensure!(codes == &serde_json::json!(["reload-refused"]), "{status}");
    ensure!(
        told.contains("ebpf") && told.contains("the one before it serves"),
        "{told}"
    );
    mesh.expect_calls()?;
    // As its remedy says: it is mended, of which the first command makes sure, and taken up.
    let remedy = status["health"]["remedy"].to_string();
    let commands: Vec<_> = remedy.split('`').skip(1).step_by(2).collect();
    let [validate, "systemctl reload istio-vm-agent"] = commands[..] else {
        bail!("{remedy}");
    };
    let words: Vec<_> = validate.split(' ').skip(1).collect();
    let output = mesh.vm.agent(&mesh.network, &words)?;
    ensure!(output.status.success(), "{validate}: {output:?}");
    let output = mesh.vm.agent(&mesh.network, &["reload"])?;
    ensure!(output.stdout == b"taken up\n", "{output:?}");
    let output = mesh.vm.agent(&mesh.network, &["status", "--wait", "ready"])?;
    ensure!(output.status.success(), "{output:?}");
    e2e::eventually("nothing amiss", e2e::PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(status["health"]["codes"] == serde_json::json!([]), "{status}");
        Ok(())
    })
}

fn container_dropped(mesh: &Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    mesh.vm.docker()?.pid_of("productcatalogservice")?;
    let config = fs::read_to_string(mesh.vm.config())?;
    let (kept, _) = config
        .split_once("[workload.container]")
        .context("no container configured")?;
    fs::write(mesh.vm.config(), kept)?;
    expect_reload(mesh)?;
    ensure!(
        mesh.vm.docker()?.pid_of("productcatalogservice").is_err(),
        "it runs still"
    );
    Ok(())
}

/// A name more in hosts and other ports: each part takes up its own, and nothing is started again.
fn bundle_changed(mesh: &Mesh) -> Result<()> {
    let agent = mesh.join()?;
    let before = agent_of(mesh)?;
    let calling = mesh.start_calls(200)?;
    edit_bundle(
        mesh,
        "hosts",
        "istiod.istio-system.svc",
        "istiod.istio-system.svc istiod-other.istio-system.svc",
    )?;
    edit_bundle(mesh, "cluster.env", "'3550'", "'3550,3551'")?;
    e2e::eventually("the new membership", e2e::PATIENCE, || {
        let log = agent.output();
        for wanted in ["hosts", "inbound ports"] {
            ensure!(log.contains(wanted), "the log has no {wanted:?}");
        }
        let plan = mesh.vm.agent(&mesh.network, &["plan"])?;
        let text = String::from_utf8_lossy(&plan.stdout);
        ensure!(text == "This host is as `run` wants it.\n", "{text}");
        Ok(())
    })?;
    calling.stop()?.expect_all_answered()?;
    ensure!(agent_of(mesh)? == before, "the agent began again");
    Ok(())
}

/// Labels are in Envoy's bootstrap.
fn relabelled(mesh: &Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    let calling = mesh.start_calls(200)?;
    let mut revision = "latest";
    for next in ["second", "third"] {
        let envoy = mesh.vm.envoy_pid(&mesh.network)?;
        let label = |revision| format!("\"service.istio.io/canonical-revision\":\"{revision}\"");
        edit_bundle(mesh, "cluster.env", &label(revision), &label(next))?;
        e2e::eventually("another Envoy, and the end of the one before", e2e::PATIENCE, || {
            ensure!(mesh.vm.envoy_pid(&mesh.network)? != envoy, "not yet");
            ensure!(!fs::exists(format!("/proc/{envoy}"))?, "the one before runs still");
            Ok(())
        })?;
        revision = next;
    }
    calling.stop()?.expect_all_answered()?;
    ensure!(
        !agent.output().contains("without a drain"),
        "an Envoy ended without a drain"
    );
    agent.stop()
}

/// The probe is the agent's, and a part of what istiod knows of the VM: a new one needs another agent and Envoy.
fn probe_changed(mesh: &Mesh) -> Result<()> {
    let agent = mesh.join()?;
    edit_bundle(mesh, "mesh.yaml", "port: 3550", "port: 3551")?;
    mesh.wait_until_healthy(false)?;
    edit_bundle(mesh, "mesh.yaml", "port: 3551", "port: 3550")?;
    mesh.wait_until_healthy(true)?;
    let began = agent.output().matches("beginning again").count();
    ensure!(began == 2, "the agent began again {began} times");
    mesh.expect_calls().map(drop)
}

fn edit_bundle(mesh: &Mesh, file: &str, from: &str, to: &str) -> Result<()> {
    let path = mesh.vm.bundle().join(file);
    let text = fs::read_to_string(&path)?;
    ensure!(text.contains(from), "{file} has no {from}");
    Ok(fs::write(path, text.replace(from, to))?)
}

fn expect_reload(mesh: &Mesh) -> Result<()> {
    let output = mesh.vm.agent(&mesh.network, &["reload"])?;
    ensure!(output.status.success(), "reload: {output:?}");
    Ok(())
}

fn edit(mesh: &Mesh, from: &str, to: &str) -> Result<()> {
    let config = fs::read_to_string(mesh.vm.config())?;
    ensure!(config.contains(from), "{config} has no {from}");
    Ok(fs::write(mesh.vm.config(), config.replacen(from, to, 1))?)
}

/// The process as `status` has it.
fn agent_of(mesh: &Mesh) -> Result<Value> {
    let (status, _) = mesh.vm.status(&mesh.network)?;
    Ok(status["agent"].clone())
}
