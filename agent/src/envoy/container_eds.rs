//! A container's endpoints for Envoy's EDS: a file that Envoy reads again whenever it is replaced.

use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::bootstrap::cluster_name;
use super::options::{ENVOY_READABLE, Options, Published};
use crate::config::PortMapping;
use crate::facts::ContainerState;
use crate::part::WorkloadChannels;

/// The time between two tries to write an address.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the files for the Envoy that is to be started, unless an earlier agent left them: the addresses in those stay.
pub(super) fn prepare(options: &Options) -> Result<()> {
    let Options {
        host, paths, published, ..
    } = options;
    if published.is_empty() {
        return Ok(());
    }
    // Nobody but root may put anything there: what an agent reads must not be Envoy's to replace.
    host.make_directory(&paths.endpoints(), 0o750, Some(ENVOY_READABLE))
        .context("failed to make the directory of the containers' endpoints")?;
    for container in published {
        if host.meta(&paths.container_endpoints(&container.workload))?.is_none() {
            write(options, container, None)?;
        }
    }
    Ok(())
}

/// Writes the address of each container whenever it changes.
pub(super) async fn follow(options: &Options, workloads: &[WorkloadChannels]) {
    let followed = options.published.iter().filter_map(|container| {
        let channels = workloads.iter().find(|it| it.name == container.workload)?;
        Some(follow_one(options, container, channels.container.subscribe()))
    });
    join_all(followed).await;
    // Nobody publishes any more, or nothing is published: all stay where they were.
    pending::<()>().await;
}

/// Writes the container's address whenever it changes, and again until that succeeds, while somebody publishes it. A
/// container that is gone keeps its last one: calls fail either way.
async fn follow_one(options: &Options, published: &Published, mut container: watch::Receiver<ContainerState>) {
    let (mut written, mut failed) = (None, None);
    loop {
        let address = match &*container.borrow_and_update() {
            ContainerState::Running { address, .. } => *address,
            _ => None,
        };
        if address.is_some() && address != written {
            match write(options, published, address) {
                Ok(()) => (written, failed) = (address, None),
                Err(error) => {
                    let text = format!("calls don't reach the container of {}: {error:#}", published.workload);
                    if failed.as_ref() != Some(&text) {
                        tracing::error!("{text}");
                    }
                    failed = Some(text);
                }
            }
        }
        tokio::select! {
            changed = container.changed() => if changed.is_err() {
                return;
            },
            () = sleep(RETRY), if failed.is_some() => {}
        }
    }
}

fn write(options: &Options, container: &Published, address: Option<IpAddr>) -> Result<()> {
    let text = response(&container.ports, address).to_string();
    let path = options.paths.container_endpoints(&container.workload);
    options
        .host
        .write_until_reboot(&path, &text, 0o640, Some(ENVOY_READABLE))
        .context("failed to tell Envoy where the container is")
}

/// Renders a DiscoveryResponse with every published port's endpoint.
fn response(published: &[PortMapping], address: Option<IpAddr>) -> Value {
    let endpoints = |port: &PortMapping| match address {
        None => json!([]),
        Some(address) => {
            let socket = json!({ "socket_address": { "address": address, "port_value": port.container } });
            json!([{ "lb_endpoints": [{ "endpoint": { "address": socket } }] }])
        }
    };
    let assignment = |port: &PortMapping| {
        json!({
            "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": cluster_name(*port),
            "endpoints": endpoints(port),
        })
    };
    json!({ "resources": published.iter().map(assignment).collect::<Value>() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::facts::{ProbeState, fixtures};
    use crate::host::{Host, System};

    fn running(address: &str) -> ContainerState {
        fixtures::running(address.parse().ok(), ProbeState::NotConfigured)
    }

    fn options(root: &Path) -> Options {
        Options {
            published: vec![Published {
                workload: "container".to_owned(),
                ports: vec!["3550:8080".parse().unwrap()],
            }],
            ..Options::bare(Host::new(root, System))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_could_not_be_written_is_written_later() {
        let root = tempfile::tempdir().unwrap();
        let options = options(root.path());
        let file = options.paths.container_endpoints("container");
        let there = || options.host.text(&file);
        // The directory of it isn't there yet.
        let (_publish, container) = watch::channel(running("172.17.0.2"));
        tokio::select! {
            () = follow_one(&options, &options.published[0], container) => {}
            () = async {
                sleep(RETRY / 2).await;
                assert!(options.host.meta(&file).unwrap().is_none());
                prepare(&options).unwrap();
                sleep(RETRY).await;
            } => {}
        }
        assert!(there().contains("172.17.0.2"), "{}", there());
    }

    #[tokio::test]
    async fn endpoints_follow_the_container_and_outlive_the_agent() {
        let root = tempfile::tempdir().unwrap();
        let options = options(root.path());
        // Whatever Envoy puts into its own directory is never looked at.
        let own = options.host.real_path(&options.paths.envoy());
        std::fs::create_dir_all(&own).unwrap();
        mkfifo(&own.join("container.json"), Mode::S_IRUSR).unwrap();
        let there = || options.host.text(&options.paths.container_endpoints("container"));
        prepare(&options).unwrap();
        assert!(there().contains(r#""endpoints":[]"#), "{}", there());

        let (publish, container) = watch::channel(running("172.17.0.2"));
        tokio::select! {
            () = follow_one(&options, &options.published[0], container) => {}
            () = async {
                let becomes = async |part: &str| while !there().contains(part) { tokio::task::yield_now().await };
                becomes(r#""address":"172.17.0.2","port_value":8080"#).await;
                publish.send_replace(ContainerState::Waiting { reason: "x".to_owned() });
                tokio::task::yield_now().await;
                publish.send_replace(running("172.17.0.3"));
                becomes("172.17.0.3").await;
            } => {}
        }
        prepare(&options).unwrap();
        assert!(
            there().contains("172.17.0.3"),
            "a new agent forgot the address: {}",
            there()
        );
    }
}
