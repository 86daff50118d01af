//! The container's endpoints for Envoy's EDS: a file that Envoy reads again whenever it is replaced.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::bootstrap::cluster_name;
use super::options::{ENVOY_READABLE, Options};
use crate::config::PortMapping;
use crate::facts::ContainerState;

/// The time between two tries to write an address.
const RETRY: Duration = Duration::from_secs(1);

/// Makes the file for the Envoy that is to be started, unless an earlier agent left one: the address in that stays.
pub(super) fn prepare(options: &Options) -> Result<()> {
    let Options {
        host, paths, published, ..
    } = options;
    if published.is_empty() {
        return Ok(());
    }
    // Nobody but root may put anything there: what an agent reads must not be Envoy's to replace.
    host.make_directory(&paths.endpoints(), 0o750, Some(ENVOY_READABLE))
        .context("failed to make the directory of the container's endpoints")?;
    if host.meta(&paths.container_endpoints())?.is_some() {
        return Ok(());
    }
    write(options, None)
}

/// Writes the container's address whenever it changes, and again until that succeeds. A container that is gone keeps its last
/// one: calls fail either way.
pub(super) async fn follow(options: &Options, mut container: watch::Receiver<ContainerState>) {
    let (mut written, mut failed) = (None, None);
    loop {
        let address = match &*container.borrow_and_update() {
            ContainerState::Running { address, .. } => *address,
            _ => None,
        };
        if address.is_some() && address != written && !options.published.is_empty() {
            match write(options, address) {
                Ok(()) => (written, failed) = (address, None),
                Err(error) => {
                    let text = format!("calls don't reach the container: {error:#}");
                    if failed.as_ref() != Some(&text) {
                        tracing::error!("{text}");
                    }
                    failed = Some(text);
                }
            }
        }
        tokio::select! {
            changed = container.changed() => if changed.is_err() {
                // Nobody publishes any more: it stays where it was.
                return std::future::pending().await;
            },
            () = sleep(RETRY), if failed.is_some() => {}
        }
    }
}

fn write(options: &Options, address: Option<IpAddr>) -> Result<()> {
    let text = response(&options.published, address).to_string();
    let path = options.paths.container_endpoints();
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
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::facts::ProbeState;
    use crate::host::{Host, System};

    fn running(address: &str) -> ContainerState {
        ContainerState::Running {
            id: "c0ffee".to_owned(),
            restarts: 0,
            outdated: false,
            address: address.parse().ok(),
            successor: None,
            trouble: None,
            exposed: Vec::new(),
            healthcheck: ProbeState::NotConfigured,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn address_that_could_not_be_written_is_written_later() {
        let root = tempfile::tempdir().unwrap();
        let options = Options {
            published: vec!["3550:8080".parse().unwrap()],
            ..Options::bare(Host::new(root.path(), System))
        };
        let there = || options.host.text(&options.paths.container_endpoints());
        // The directory of it isn't there yet.
        let (_publish, container) = watch::channel(running("172.17.0.2"));
        tokio::select! {
            () = follow(&options, container) => {}
            () = async {
                sleep(RETRY / 2).await;
                let path = options.paths.container_endpoints();
                assert!(options.host.meta(&path).unwrap().is_none());
                prepare(&options).unwrap();
                sleep(RETRY).await;
            } => {}
        }
        assert!(there().contains("172.17.0.2"), "{}", there());
    }

    #[tokio::test]
    async fn endpoints_follow_the_container_and_outlive_the_agent() {
        let root = tempfile::tempdir().unwrap();
        let options = Options {
            published: vec!["3550:8080".parse().unwrap()],
            ..Options::bare(Host::new(root.path(), System))
        };
        // Whatever Envoy puts into its own directory is never looked at.
        let own = options.host.real_path(&options.paths.envoy());
        std::fs::create_dir_all(&own).unwrap();
        mkfifo(&own.join("container.json"), Mode::S_IRUSR).unwrap();
        let there = || options.host.text(&options.paths.container_endpoints());
        prepare(&options).unwrap();
        assert!(there().contains(r#""endpoints":[]"#), "{}", there());

        let (publish, container) = watch::channel(running("172.17.0.2"));
        tokio::select! {
            () = follow(&options, container) => {}
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
