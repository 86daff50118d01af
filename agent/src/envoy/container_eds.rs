//! A container's endpoints for Envoy's EDS: a file that Envoy reads again whenever it is replaced.

use std::future::pending;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::bootstrap::cluster_name;
use super::options::{ENVOY_READABLE, Options, Published};
use super::view::{Assignment, Dump, views};
use crate::config::PortMapping;
use crate::facts::ContainerState;
use crate::part::WorkloadChannels;
use crate::supervise::Backoff;

/// The time between two tries to write an address.
const RETRY: Duration = Duration::from_secs(1);
/// The time after which Envoy is first asked again whether it has read one.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// The page of Envoy's admin interface with the endpoints of the bootstrap's clusters that are named `container|…`.
const ENDPOINTS: &str = "/config_dump?resource=static_endpoint_configs&include_eds&name_regex=container%5C%7C.*";

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
        Some(follow_one(options, container, channels))
    });
    join_all(followed).await;
    // Nobody publishes any more, or nothing is published: all stay where they were.
    pending::<()>().await;
}

/// Writes the container's address whenever it changes, and again until that succeeds, and publishes it once Envoy has read
/// it. One that is gone, or off the bridge, has none: Docker gives its last one to whatever container comes next.
async fn follow_one(options: &Options, published: &Published, channels: &WorkloadChannels) {
    let mut container = channels.container.subscribe();
    let (mut written, mut failed) = (None, None);
    loop {
        let address = match &*container.borrow_and_update() {
            ContainerState::Running { address, .. } => Some(*address),
            ContainerState::Failed { gone: true, .. } => Some(None),
            _ => None,
        };
        if let Some(address) = address.filter(|address| Some(*address) != written) {
            match write(options, published, address) {
                Ok(()) => (written, failed) = (Some(address), None),
                Err(error) => {
                    let text = format!("calls don't reach the container of {}: {error:#}", published.workload);
                    if failed.as_ref() != Some(&text) {
                        tracing::error!("{text}");
                    }
                    failed = Some(text);
                }
            }
        }
        let address = written.flatten();
        let is_read = address == *channels.called_at.borrow();
        tokio::select! {
            changed = container.changed() => if changed.is_err() {
                return;
            },
            () = sleep(RETRY), if failed.is_some() => {}
            () = until_read(options, published, address), if !is_read => {
                channels.called_at.send_replace(address);
            }
        }
    }
}

/// Completes once Envoy calls the container at `address`.
async fn until_read(options: &Options, published: &Published, address: Option<IpAddr>) {
    let admin = options.admin();
    let mut backoff = Backoff::new(ASK_AGAIN, RETRY);
    loop {
        match admin.show(ENDPOINTS).await {
            Ok(dump) if calls(&dump, published, address) => return,
            Ok(_) => {}
            // It is about to be started, or ends.
            Err(error) => tracing::debug!("{error:#}"),
        }
        backoff.wait().await;
    }
}

/// True where a `/config_dump` has `address` as the only endpoint of each published port, or no endpoint where there is none.
fn calls(dump: &str, published: &Published, address: Option<IpAddr>) -> bool {
    let endpoints = Dump::parse(dump).map(|dump| views::<Assignment>(&dump.endpoints));
    let endpoints = endpoints.unwrap_or_default();
    published.ports.iter().all(|port| {
        let name = cluster_name(*port);
        let of_it = endpoints.iter().find(|it| it.cluster_name == name);
        let hosts: Vec<_> = of_it
            .iter()
            .flat_map(|it| it.all())
            .map(|it| it.endpoint.address.host())
            .collect();
        let wanted: Vec<_> = address.into_iter().map(Ok).collect();
        hosts.iter().map(|host| host.parse()).collect::<Vec<_>>() == wanted
    })
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

    #[test]
    fn envoy_calls_a_container_whose_ports_all_have_its_address_and_no_other() {
        let published = Published {
            workload: "web".to_owned(),
            ports: vec!["80:8080".parse().unwrap(), "90:9090".parse().unwrap()],
        };
        let endpoint =
            |address: &str| json!({ "endpoint": { "address": { "socket_address": { "address": address } } } });
        let dump = |of_80: &[&str], of_90: &[&str]| {
            let assignment = |name: &str, addresses: &[&str]| {
                let endpoints: Vec<_> = addresses.iter().map(|address| endpoint(address)).collect();
                json!({ "endpoint_config": { "cluster_name": name, "endpoints": [{ "lb_endpoints": endpoints }] } })
            };
            let configs = [assignment("container|80", of_80), assignment("container|90", of_90)];
            json!({ "configs": [{ "static_endpoint_configs": configs }] }).to_string()
        };
        let (old, new) = ("172.17.0.2", "172.17.0.3");
        let is_new = |dump: &str| calls(dump, &published, new.parse().ok());
        assert!(is_new(&dump(&[new], &[new])));
        for (of_80, of_90) in [(&[new][..], &[old][..]), (&[], &[new]), (&[old, new], &[new])] {
            assert!(!is_new(&dump(of_80, of_90)), "{of_80:?} {of_90:?}");
        }
        assert!(!is_new("{}") && !is_new("not JSON"));
        assert!(calls(&dump(&[], &[]), &published, None) && !calls(&dump(&[old], &[]), &published, None));
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
        let channels = WorkloadChannels::named("container");
        channels.container.send_replace(running("172.17.0.2"));
        tokio::select! {
            () = follow_one(&options, &options.published[0], &channels) => {}
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

        let channels = WorkloadChannels::named("container");
        let publish = channels.container.clone();
        publish.send_replace(running("172.17.0.2"));
        tokio::select! {
            () = follow_one(&options, &options.published[0], &channels) => {}
            () = async {
                let becomes = async |part: &str| while !there().contains(part) { tokio::task::yield_now().await };
                becomes(r#""address":"172.17.0.2","port_value":8080"#).await;
                publish.send_replace(ContainerState::Waiting { reason: "x".to_owned() });
                tokio::task::yield_now().await;
                publish.send_replace(running("172.17.0.3"));
                becomes("172.17.0.3").await;
                // Somebody took it off the bridge, or it ended: the address may be another container's.
                let error = "x".to_owned();
                for state in [fixtures::running(None, ProbeState::NotConfigured), ContainerState::Failed { error, gone: true }] {
                    publish.send_replace(state);
                    becomes(r#""endpoints":[]"#).await;
                    publish.send_replace(running("172.17.0.3"));
                    becomes("172.17.0.3").await;
                }
                // Docker doesn't say: it may run.
                publish.send_replace(ContainerState::Failed { error: "x".to_owned(), gone: false });
                tokio::task::yield_now().await;
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
