//! The container without an agent: what `plan`, `check` and `revert` look at and do.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::engine::{Container, Engine, Setup, short_id};
use super::names::{names_of, rejected_name};
use super::options::Options;
use super::spec;
use super::wanted::Wanted;
use crate::config::{ContainerConfig, Network};
use crate::part::{Change, Effect, Plan};

/// The changes that a start of the agent would make, with the containers that are configured, all of one dockerd. One that
/// can't be reached is told, for a start waits for it. Changes nothing.
///
/// # Errors
/// When a configured name is somebody else's container, dockerd is rootless, or it doesn't answer a question.
pub async fn plan(containers: &[Options]) -> Result<Plan> {
    let Some(Options { config: first, .. }) = containers.first() else {
        return Ok(Plan::default());
    };
    let names: Vec<_> = containers.iter().map(|options| options.config.name.as_str()).collect();
    let names = names.join(", ");
    let of = format!("containers that this agent did not make, whatever their name but {names}");
    let plan = match Engine::connect(&first.docker_socket).await {
        Ok(engine) => {
            let wanted: Result<Vec<_>> = containers.iter().map(Options::wanted).collect();
            differences(&engine, &wanted?).await?
        }
        Err(error) => Plan {
            unseen: vec![format!(
                "whether the container {names} runs as configured, or others of the agent's are to be removed: {error:#}"
            )],
            ..Plan::default()
        },
    };
    Ok(plan.leaving(of))
}

/// Fails when a configured name is somebody else's container.
pub(super) async fn expect_own(options: &Options) -> Result<()> {
    let engine = Engine::connect(&options.config.docker_socket).await?;
    engine.configured(&options.wanted()?).await?;
    Ok(())
}

async fn differences(engine: &Engine, containers: &[Wanted]) -> Result<Plan> {
    let networks = containers.iter().map(|wanted| wanted.config.network);
    engine.expect_callable(networks).await?;
    let ours = engine.ours().await?;
    let (mut plan, mut removed, mut made, mut kept) = (Plan::default(), Vec::new(), Vec::new(), Vec::new());
    for wanted in containers {
        let config = &wanted.config;
        if let Some(words) = rejected(&ours, config) {
            plan = plan.effect(Effect::LeavesAlone, words);
            let names = names_of(&config.name);
            kept.extend(
                ours.iter()
                    .filter(|it| names.contains(&it.name))
                    .map(|it| it.id.clone()),
            );
            continue;
        }
        let right = engine.configured(wanted).await?;
        kept.extend(right.iter().map(|right| right.id.clone()));
        plan = changes(engine, wanted, right, plan, &mut made).await?;
    }
    for old in ours.iter().filter(|old| !kept.contains(&old.id)) {
        let old = format!("container {} ({})", old.name, short_id(&old.id));
        removed.push(format!("- {old}"));
        plan = plan.effect(Effect::Removes, format!("the {old}"));
    }
    let lines = [removed, made].concat();
    if !lines.is_empty() {
        plan.changes.push(Change::new("container", lines.join("\n")));
    }
    Ok(plan)
}

/// The `lines` and the effects of one container, whose like is there where `right` is some.
async fn changes(
    engine: &Engine,
    wanted: &Wanted,
    right: Option<Container>,
    mut plan: Plan,
    lines: &mut Vec<String>,
) -> Result<Plan> {
    let ContainerConfig { name, image, .. } = &wanted.config;
    if let Some((container, limits)) = right.as_ref().and_then(|it| Some((it, it.other_limits(wanted)?))) {
        let id = short_id(&container.id);
        lines.push(format!("+ limits of the container {} ({id}): {limits}", container.name));
    }
    match right {
        Some(container) if container.running => {}
        Some(container) => {
            let id = short_id(&container.id);
            lines.push(format!("+ start the container {name} ({id})"));
            plan = plan.effect(Effect::Starts, format!("the container {name} ({id})"));
        }
        None => {
            if !engine.has_image(image).await? {
                lines.push(format!("+ image {image}"));
                plan = plan.effect(Effect::Writes, format!("the image {image}, pulled by dockerd"));
            }
            lines.push(format!("+ container {name} from {image}"));
            lines.extend(
                settings(&wanted.config)
                    .into_iter()
                    .map(|setting| format!("+   {setting}")),
            );
            plan = plan.effect(Effect::Starts, format!("the container {name} from {image}"));
        }
    }
    Ok(plan)
}

/// The container that runs, in words, where the wanted one was not well and is not tried again.
fn rejected(ours: &[Container], config: &ContainerConfig) -> Option<String> {
    let named = |name: &str| ours.iter().find(|container| container.name == name);
    let (rejected, former) = (named(&rejected_name(&config.name))?, named(&config.name)?);
    let is_of = rejected.spec.as_deref() == Some(&spec::hash(config));
    is_of.then(|| {
        format!(
            "the container {} ({}): {} was not well in its place, as {} says",
            former.name,
            short_id(&former.id),
            config.image,
            rejected.name
        )
    })
}

/// The settings of a new container, values of its environment and its arguments aside: secrets may be among them.
fn settings(config: &ContainerConfig) -> Vec<String> {
    let joined = |words: Vec<String>| (!words.is_empty()).then(|| words.join(", "));
    let ports = config
        .published()
        .iter()
        .map(|port| format!("{}:{}", port.host, port.container));
    let network = match config.network {
        Network::Bridge => "Docker's bridge",
        Network::Host => "the VM's own",
    };
    [
        Some(("network", network.to_owned())),
        joined(ports.collect()).map(|ports| ("ports", ports)),
        joined(config.env.keys().cloned().collect()).map(|names| ("environment", names)),
        joined(paths(&config.secrets)).map(|files| ("secrets", files)),
        joined(config.mounts.iter().map(ToString::to_string).collect()).map(|mounts| ("mounts", mounts)),
        joined(config.tmpfs.clone()).map(|targets| ("tmpfs", targets)),
        config.user.clone().map(|user| ("user", user)),
        config.read_only.then(|| ("root", "read-only".to_owned())),
        config
            .command
            .as_ref()
            .map(|words| ("command", format!("{} words, not shown", words.len()))),
    ]
    .into_iter()
    .flatten()
    .map(|(name, value)| format!("{name}: {value}"))
    .collect()
}

fn paths(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|path| path.display().to_string()).collect()
}

/// Settings of dockerd.
pub(super) async fn setup(config: &ContainerConfig) -> Result<Setup> {
    Engine::connect(&config.docker_socket).await?.setup().await
}

/// Stops and removes every container of the agent's.
pub async fn remove(socket: &str, stop_timeout: Duration) -> Result<()> {
    let Some(engine) = engine(socket).await? else {
        return Ok(());
    };
    let mut failures = Vec::new();
    for container in engine.ours().await? {
        let gone = async {
            engine.stop(&container, stop_timeout).await?;
            engine.remove(&container).await
        };
        match gone.await {
            Ok(()) => tracing::info!(container = container.name, "stopped and removed the container"),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    match failures.is_empty() {
        true => Ok(()),
        false => Err(anyhow!(failures.join("; "))).context("failed to remove this agent's containers"),
    }
}

/// The containers of the agent's, each in words.
pub(super) async fn traces(socket: &str) -> Result<Vec<String>> {
    let Some(engine) = engine(socket).await? else {
        return Ok(Vec::new());
    };
    let ours = engine.ours().await?.into_iter();
    Ok(ours
        .map(|it| format!("the container {} ({})", it.name, short_id(&it.id)))
        .collect())
}

/// The dockerd at a socket. A VM without dockerd has no container: the socket's absence is fine.
async fn engine(socket: &str) -> Result<Option<Engine>> {
    match Engine::connect(socket).await {
        Ok(engine) => Ok(Some(engine)),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == ErrorKind::NotFound)
}
