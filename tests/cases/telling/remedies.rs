//! The remedy that `status` has for a cause takes it away.

mod container;
mod credentials;
mod envoy;
mod mesh;
mod vm;

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::{Agent, Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use serde_json::Value;

use super::shell;
use crate::stand_in_only;

/// A trouble, and an operator who does what is said of it.
struct Cause {
    /// Codes that `status` names: the cause first, then what comes of it.
    codes: &'static [&'static str],
    trouble: fn(&mut Mesh, &mut Agent) -> Result<()>,
    /// Words by which the operator knows what to do, which [`told`] has.
    says: &'static str,
    /// Does what is said, and nothing else.
    act: fn(&mut Mesh, &mut Agent, &str) -> Result<()>,
}

pub(super) fn trials() -> Vec<Trial> {
    let case = |about, case: fn(&mut Mesh) -> Result<()>| {
        let name = format!("status: what it says to do about {about} takes it away");
        stand_in_only(&name, move || with_mesh(Kind::StandIn, Settings::default(), case))
    };
    vec![
        case("the VM", vm::take_away),
        case("the mesh", mesh::take_away),
        case("credentials", credentials::take_away),
        case("Envoy", envoy::take_away),
        stand_in_only("status: what it says to do about a fetched Envoy takes it away", || {
            let settings = Settings {
                envoy_image: true,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, envoy::take_away_of_a_fetched_one)
        }),
        stand_in_only("status: what it says to do about a container takes it away", || {
            let settings = Settings {
                application: Application::Container,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, container::take_away)
        }),
    ]
}

/// On a VM that serves the mesh, and does so again after each.
fn take_away(mesh: &mut Mesh, causes: &[Cause]) -> Result<()> {
    let mut agent = mesh.join()?;
    for cause in causes {
        let code = cause.codes[0];
        (cause.trouble)(mesh, &mut agent).with_context(|| code.to_owned())?;
        let found = eventually(format!("{code} in status"), PATIENCE, || {
            let told = health(mesh)?;
            let is_there = |code: &&str| place(&told, code).is_some();
            ensure!(
                place(&told, code) == Some(0) && cause.codes.iter().all(is_there),
                "{told}"
            );
            Ok(told)
        })?;
        let told = told(mesh, &found, code)?;
        ensure!(told.contains(cause.says), "no {:?}: {told}", cause.says);
        (cause.act)(mesh, &mut agent, &told).with_context(|| format!("{code}: {told}"))?;
        eventually(format!("{code} to be out of status"), PATIENCE, || {
            let told = health(mesh)?;
            let is_left = |code: &&str| place(&told, code).is_some();
            ensure!(!cause.codes.iter().any(is_left) && told["ready"] == true, "{told}");
            Ok(())
        })?;
    }
    mesh.expect_calls().map(drop)
}

fn health(mesh: &Mesh) -> Result<Value> {
    let (mut status, _) = mesh.vm.status(&mesh.network)?;
    Ok(status["health"].take())
}

fn place(health: &Value, code: &str) -> Option<usize> {
    health["codes"].as_array()?.iter().position(|told| told == code)
}

/// The line of a cause, the remedy, and what the first command of the agent's in these says.
fn told(mesh: &Mesh, health: &Value, code: &str) -> Result<String> {
    let line = &health["problems"][place(health, code).context("no such line")?];
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| health.to_string());
    let mut told = format!("{}\n{}\n", text(line)?, text(&health["remedy"])?);
    let commands = told.split('`').skip(1).step_by(2);
    if let Some(command) = commands.filter_map(|line| line.strip_prefix("istio-vm-agent ")).next() {
        let words: Vec<&str> = command.split(' ').collect();
        let output = mesh.vm.agent(&mesh.network, &words)?;
        told += &String::from_utf8(output.stdout)?;
    }
    Ok(told)
}

/// The first part of what is told that stands between backticks and begins with `start`.
fn command<'a>(told: &'a str, start: &str) -> Result<&'a str> {
    let mut commands = told.split('`').skip(1).step_by(2);
    let command = commands.find(|command| command.starts_with(start));
    command.with_context(|| format!("no command that begins with {start:?}"))
}

/// Ends the agent, and starts one that knows nothing of the mesh.
fn begin_anew(mesh: &Mesh, agent: &mut Agent) -> Result<()> {
    agent.stop()?;
    for entry in fs::read_dir(mesh.vm.state_folder())? {
        let path = entry?.path();
        match path.is_dir() {
            true => fs::remove_dir_all(path)?,
            false => fs::remove_file(path)?,
        }
    }
    *agent = mesh.vm.start_agent(&mesh.network)?;
    Ok(())
}
