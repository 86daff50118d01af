//! What `status` says to do about a cause takes it away.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::mesh::Mesh;
use e2e::vm::Agent;
use e2e::{PATIENCE, eventually};
use rustix::process::Signal;
use serde_json::Value;

use super::shell;

/// A cause, and an operator who does what its remedy says.
struct Cause {
    code: &'static str,
    trouble: fn(&mut Mesh, &mut Agent) -> Result<()>,
    /// What the command that the remedy begins with says, where it is one of the agent's.
    told: Option<&'static str>,
    act: fn(&mut Mesh, &mut Agent) -> Result<()>,
}

const CAUSES: &[Cause] = &[
    Cause {
        code: "join-source",
        trouble: |mesh, _| Ok(fs::remove_file(mesh.vm.bundle().join("cluster.env"))?),
        told: Some("cluster.env"),
        act: |mesh, _| mesh.write_bundle(),
    },
    Cause {
        code: "istiod-unreachable",
        trouble: |mesh, _| mesh.kill_istiod(),
        told: Some("istiod.istio-system.svc:15012"),
        act: |mesh, _| mesh.start_istiod(),
    },
    Cause {
        code: "envoy-refused",
        trouble: |mesh, _| {
            mesh.control_plane.stand_in()?.set_istio_filters(true);
            Ok(())
        },
        told: None,
        act: |mesh, _| {
            mesh.control_plane.stand_in()?.set_istio_filters(false);
            Ok(())
        },
    },
    Cause {
        code: "probe-failing",
        trouble: |mesh, _| mesh.vm.signal_application(Signal::STOP),
        told: None,
        act: |mesh, _| mesh.vm.signal_application(Signal::CONT),
    },
    Cause {
        code: "hosts-file",
        // By no agent's leave, which would put its block back at once.
        trouble: |mesh, agent| {
            agent.signal(Signal::STOP)?;
            shell(mesh, "echo 127.0.0.1 localhost >/etc/hosts && chattr +i /etc/hosts")?;
            agent.signal(Signal::CONT)
        },
        told: Some("chattr -i /etc/hosts"),
        act: |mesh, _| shell(mesh, "chattr -i /etc/hosts"),
    },
    Cause {
        code: "agent-down",
        trouble: |_, agent| agent.kill(),
        told: Some("IVA101"),
        act: |mesh, agent| {
            *agent = mesh.vm.start_agent(&mesh.network)?;
            Ok(())
        },
    },
];

pub(super) fn take_causes_away(mesh: &mut Mesh) -> Result<()> {
    let taken = take_each_away(mesh);
    // Else nobody could take the case's folder away.
    shell(mesh, "chattr -i /etc/hosts")?;
    taken
}

fn take_each_away(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    for Cause {
        code,
        trouble,
        told,
        act,
    } in CAUSES
    {
        trouble(mesh, &mut agent)?;
        let problem = eventually(format!("{code} in status"), PATIENCE, || {
            let told = health(mesh)?;
            ensure!(told["codes"].to_string().contains(code), "{told}");
            Ok(told)
        })?;
        if let Some(told) = told {
            let said = asked(mesh, problem["remedy"].as_str().context("no remedy")?)?;
            ensure!(said.contains(told), "{problem}: {said}");
        }
        act(mesh, &mut agent)?;
        eventually(format!("{code} to be out of status"), PATIENCE, || {
            let told = health(mesh)?;
            let is_well = !told["codes"].to_string().contains(code) && told["ready"] == true;
            ensure!(is_well, "{told}");
            Ok(())
        })?;
    }
    mesh.expect_calls().map(drop)
}

fn health(mesh: &Mesh) -> Result<Value> {
    let (mut status, _) = mesh.vm.status(&mesh.network)?;
    Ok(status["health"].take())
}

/// What the command says that is first in a remedy.
fn asked(mesh: &Mesh, remedy: &str) -> Result<String> {
    let command = remedy
        .split('`')
        .nth(1)
        .and_then(|line| line.strip_prefix("istio-vm-agent "));
    let words: Vec<&str> = command.with_context(|| remedy.to_owned())?.split(' ').collect();
    let output = mesh.vm.agent(&mesh.network, &words)?;
    Ok(String::from_utf8(output.stdout)?)
}
