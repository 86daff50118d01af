//! Properties of a source's bundle, whatever is in it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::addresses::Machine;
use super::assemble::assemble;
use super::bundle::Bundle;
use super::files::{File, Files};
use super::{cache, cluster_env as env, hosts_lines as hosts, https, mesh_yaml as mesh, proxy_config};
use super::{readiness_probe, root_certs as roots, signed, token as tokens};
use crate::config::{Config, ConfigError};
use crate::facts::{HostEntry, Membership, ProxyConfig};

pub(crate) use super::gke::fuzz::{cluster as gke_cluster, refusal as gke_refusal};
pub(crate) use super::kubernetes::fuzz::{duration, objects, refusal};

/// While the certificates of the corpus are valid.
const NOW: Duration = Duration::from_secs(1_800_000_000);

const CLUSTER_ENV: &str = include_str!("../../tests/golden/vm-bundle/cluster.env");
const MESH_YAML: &str = include_str!("../../tests/golden/vm-bundle/mesh.yaml");
const ROOT_CERT: &str = include_str!("../../tests/golden/vm-bundle/root-cert.pem");
const HOSTS: &str = include_str!("../../tests/golden/vm-bundle/hosts");

/// The membership of istioctl's files for one VM.
pub(crate) fn membership() -> Membership {
    assembled([CLUSTER_ENV, MESH_YAML, ROOT_CERT, HOSTS]).expect("istioctl's files are good")
}

/// cluster.env, mesh.yaml, root-cert.pem and hosts; what is missing is istioctl's.
pub(crate) fn bundle(input: &str) {
    let mut parts = input.split('\0');
    let mut next = |whole| parts.next().filter(|part| !part.is_empty()).unwrap_or(whole);
    let texts = [next(CLUSTER_ENV), next(MESH_YAML), next(ROOT_CERT), next(HOSTS)];
    if let Ok(membership) = assembled(texts) {
        assert!(membership.hosts.iter().all(is_one_line));
        assert!(!membership.instance_ips.is_empty());
        check(&membership.proxy_config);
    }
}

fn assembled([cluster_env, mesh_yaml, root_cert, hosts]: [&str; 4]) -> Result<Membership, ConfigError> {
    let files = Files {
        cluster_env: File::new("cluster.env", cluster_env),
        mesh_yaml: File::new("mesh.yaml", mesh_yaml),
        root_cert: File::new("root-cert.pem", root_cert),
        hosts: File::new("hosts", hosts),
        signature: None,
    };
    let bundle = Bundle::parse(&files, None)?;
    let address = IpAddr::V4(Ipv4Addr::new(10, 200, 0, 3));
    let machine = Machine {
        name: "vm".to_owned(),
        interfaces: vec![("eth0".to_owned(), address)],
        source_towards: |_| Ok(Ipv4Addr::new(10, 200, 0, 3).into()),
        now: SystemTime::UNIX_EPOCH + NOW,
    };
    let config = Config::parse(Path::new("config.toml"), "join.directory.path = '/b'")?;
    assemble(&bundle, &config, &machine)
}

/// cluster.env alone.
pub(crate) fn cluster_env(text: &str) {
    if let Ok(env) = env::parse(text) {
        let lines = text.lines().count();
        for (key, value) in &env.values {
            assert!(
                env.lines
                    .get(key)
                    .is_some_and(|place| (1..=lines).contains(&place.line()))
            );
            assert!(value.len() <= text.len());
        }
    }
}

/// `hosts`, whose lines are to go into /etc/hosts.
pub(crate) fn hosts_lines(text: &str) {
    if let Ok(entries) = hosts::parse(text) {
        let entries: Vec<HostEntry> = entries.into_iter().map(|(_, entry)| entry).collect();
        assert!(hosts::check(&entries, |_| true).is_err() || entries.iter().all(is_one_line));
    }
}

fn is_one_line(entry: &HostEntry) -> bool {
    let is_word =
        |name: &String| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#');
    !entry.names.is_empty() && entry.names.iter().all(is_word)
}

/// mesh.yaml alone: the ProxyConfig, and the probe in it.
pub(crate) fn mesh_yaml(text: &str) {
    let Ok(mesh) = mesh::parse(text) else { return };
    let lines = text.split('\n').count();
    assert!(mesh.lines.values().all(|place| (1..=lines).contains(&place.line())));
    if let Some(probe) = mesh.proxy_config.0.get("readinessProbe") {
        let _ = readiness_probe::parse(probe, true);
    }
    if let Ok(config) = proxy_config::effective(&mesh.proxy_config, None) {
        check(&config);
    }
}

/// Envoy is started with these, and they are added up.
fn check(config: &ProxyConfig) {
    let fields = ["drainDuration", "terminationDrainDuration", "fileFlushInterval"];
    let durations = fields.into_iter().filter_map(|field| config.duration(field));
    for duration in durations {
        assert!(duration <= crate::config::LONGEST);
    }
}

/// root-cert.pem.
pub(crate) fn root_certs(text: &str) {
    let _ = roots::checked(text, SystemTime::UNIX_EPOCH + NOW);
}

/// SHA256SUMS and its signature; the key is that of agent/tests/golden/signed.
pub(crate) fn bundle_signature(input: &str) {
    let (sums, signature) = input.split_once('\0').unwrap_or((input, ""));
    let _ = signed::verify(
        sums,
        signature,
        "RWSYyLgjTU7yeFGbccI5/yKuG6Mht/69Nr95OufS50arxuNAwv2COlgh",
    );
    if let Ok(listed) = signed::listed(sums) {
        assert_eq!(listed.len(), sums.lines().count(), "each line is of a file of its own");
        assert!(listed.values().all(|sum| sum.len() == 32));
    }
}

/// The document that remembers the newest signature.
pub(crate) fn newest_signature(text: &str) {
    crate::fuzz::is_kept::<signed::Signed>(text);
}

/// istio-token.
pub(crate) fn token(text: &str) {
    let _ = tokens::check(text);
}

/// The file with a header for a bundle's server.
pub(crate) fn header(text: &str) {
    if let Ok((_, value)) = https::header::parse(text) {
        assert!(value.is_sensitive() && !value.is_empty());
    }
}

/// The cache of a remote source.
pub(crate) fn membership_cache(text: &str) {
    let source = "https://bundles.example/vm/";
    let parse = |text: &str| {
        let here = crate::host::Machine::default();
        cache::parse(text, Path::new("/membership.json"), source, None, &here)
    };
    if let Ok(Some(bundle)) = parse(text) {
        let written = cache::text(source, None, &bundle).expect("it is JSON");
        let read = parse(&written).expect("it is read again");
        assert_eq!(
            read,
            Some(bundle),
            "a bundle that comes out of the cache otherwise is a change"
        );
    }
}
