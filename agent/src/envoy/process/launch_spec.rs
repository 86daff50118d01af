//! The specification that an Envoy is started with: its bootstrap and its command line. Pure.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::envoy::bootstrap::{BootstrapOptions, LocalAddresses, PublishedPort, bootstrap};
use crate::envoy::options::{Options, Published};
use crate::facts::Membership;

/// The drain when ProxyConfig has no `drainDuration` (istio/pkg/config/mesh/mesh.go).
pub(in crate::envoy) const DEFAULT_DRAIN_DURATION: Duration = Duration::from_secs(45);
/// The pause between two writes of Envoy's logs when ProxyConfig has no `fileFlushInterval`.
const DEFAULT_FILE_FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// The specification that an Envoy is started with. Two that are equal need no other process.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::envoy) struct LaunchSpec {
    /// The bootstrap file's text.
    pub(in crate::envoy) bootstrap: String,
    /// The program and its arguments.
    pub(in crate::envoy) command_line: Vec<String>,
}

impl LaunchSpec {
    pub(in crate::envoy) fn new(options: &Options, program: &Path, membership: &Membership) -> Self {
        let sockets = BootstrapOptions {
            xds_socket: options.host.real_path(&options.paths.xds_socket()),
            sds_socket: options.host.real_path(&options.paths.sds_socket()),
            admin_socket: options.host.real_path(&options.paths.admin_socket()),
            admin_port: options.config.admin_port,
            published: published_ports(options),
        };
        Self {
            bootstrap: format!("{:#}\n", bootstrap(membership, &sockets)),
            command_line: command_line(options, program, membership),
        }
    }

    pub(in crate::envoy) fn program(&self) -> PathBuf {
        self.command_line.first().map(PathBuf::from).unwrap_or_default()
    }
}

fn published_ports(options: &Options) -> Vec<PublishedPort> {
    let of_each = options.published.iter().flat_map(|Published { workload, ports }| {
        let endpoints = options.host.real_path(&options.paths.container_endpoints(workload));
        ports.iter().map(move |mapping| PublishedPort {
            mapping: *mapping,
            endpoints: endpoints.clone(),
        })
    });
    of_each.collect()
}

/// Envoy's program and the arguments that Istio gives it (istio/pkg/envoy/proxy.go). No secret is among them.
pub fn command_line(options: &Options, program: &Path, membership: &Membership) -> Vec<String> {
    let config = &membership.proxy_config;
    let drain = config
        .duration("drainDuration")
        .unwrap_or(DEFAULT_DRAIN_DURATION)
        .as_secs();
    let flush = config
        .duration("fileFlushInterval")
        .unwrap_or(DEFAULT_FILE_FLUSH_INTERVAL)
        .as_millis();
    let number = |field: &str| config.0.get(field).and_then(Value::as_u64).filter(|number| *number > 0);
    let concurrency = options
        .config
        .concurrency
        .map(u64::from)
        .or_else(|| number("concurrency"));
    let version = if LocalAddresses::of(membership).localhost.is_ipv6() {
        "v6"
    } else {
        "v4"
    };
    let path = |path: &Path| path.to_string_lossy().into_owned();

    let mut line = vec![path(program)];
    let mut add = |arguments: &[&str]| line.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    add(&["-c", &path(&options.host.real_path(&options.paths.bootstrap()))]);
    add(&["--drain-time-s", &drain.to_string(), "--drain-strategy", "immediate"]);
    add(&["--local-address-ip-version", version]);
    add(&["--file-flush-interval-msec", &flush.to_string()]);
    add(&["--disable-hot-restart", "--allow-unknown-static-fields"]);
    if let Some(size) = number("fileFlushMinSizeKb") {
        add(&["--file-flush-min-size-kb", &size.to_string()]);
    }
    add(&["-l", &options.config.log_level, "--skip-deprecated-logs"]);
    if let Some(threads) = concurrency {
        add(&["--concurrency", &threads.to_string()]);
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::envoy::bootstrap::tests::membership;
    use crate::host::Host;

    #[test]
    fn command_line_is_pilot_agents() {
        let golden = include_str!("../../../tests/golden/envoy/command-line.txt");
        let expected = golden
            .trim()
            .replace("etc/istio/proxy/envoy-rev.json", "/run/istio-vm-agent/envoy.json");
        assert_eq!(
            command_line(
                &Options::bare(Host::system()),
                Path::new("/usr/local/bin/envoy"),
                &membership()
            )
            .join(" "),
            expected
        );
    }

    #[test]
    fn command_line_honors_proxy_config_and_the_operator() {
        let (mut options, mut membership) = (Options::bare(Host::system()), membership());
        let fields =
            json!({ "concurrency": 2, "drainDuration": "7s", "fileFlushInterval": "0.5s", "fileFlushMinSizeKb": 8 });
        membership.proxy_config.0.extend(fields.as_object().unwrap().clone());
        membership.instance_ips.remove(0);
        let line = command_line(&options, Path::new("/e"), &membership).join(" ");
        for part in [
            "--drain-time-s 7 ",
            "-version v6 ",
            "-msec 500 ",
            "--file-flush-min-size-kb 8 ",
            "--concurrency 2",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        options.config.concurrency = Some(3);
        assert!(
            command_line(&options, Path::new("/e"), &membership)
                .join(" ")
                .ends_with("--concurrency 3")
        );
    }
}
