use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::addresses::Machine;
use super::assemble::assemble;
use super::*;
use crate::facts::{HostEntry, ProbeKind, ProxyConfig, SpiffeId};
use crate::host::System;

mod broken;
pub(crate) mod judged;
pub(super) mod remote;

/// The files that istioctl wrote for one WorkloadGroup of a real mesh, and a token of the right shape.
pub(crate) const BUNDLE: [(&str, &str); 5] = [
    ("cluster.env", include_str!("../../tests/golden/vm-bundle/cluster.env")),
    ("mesh.yaml", include_str!("../../tests/golden/vm-bundle/mesh.yaml")),
    (
        "root-cert.pem",
        include_str!("../../tests/golden/vm-bundle/root-cert.pem"),
    ),
    ("hosts", include_str!("../../tests/golden/vm-bundle/hosts")),
    ("istio-token", "eyJhbGciOiJub25lIn0.e30.c2ln\n"),
];

/// A bundle on a host of its own; each test breaks it in its way.
struct Case {
    _root: tempfile::TempDir,
    host: Host,
    config: Config,
}

impl Case {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        host.make_directory(Path::new("/b"), 0o700, None).unwrap();
        for (name, text) in BUNDLE {
            host.write(&Path::new("/b").join(name), text, 0o600, None).unwrap();
        }
        let config = Config::parse(Path::new("c.toml"), "[join]\ndirectory = { path = \"/b\" }").unwrap();
        Self {
            _root: root,
            host,
            config,
        }
    }

    fn write(&self, name: &str, text: &str) {
        self.host.rewrite(&Path::new("/b").join(name), text.as_bytes()).unwrap();
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.host.text(&Path::new("/b").join(name));
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(name, &text.replace(from, to));
    }

    fn bundle(&self) -> Result<Bundle, ConfigError> {
        directory::Directory::new(Path::new("/b"), None, &self.host).read()
    }

    fn load(&self) -> Result<Membership, String> {
        self.bundle()
            .and_then(|bundle| assemble(&bundle, &self.config, &vm()))
            .map_err(|error| error.to_string())
    }
}

/// The VM that the bundle is for, in 2030.
fn vm() -> Machine {
    Machine {
        name: "vm".to_owned(),
        interfaces: vec![
            ("lo".to_owned(), "127.0.0.1".parse().unwrap()),
            ("docker0".to_owned(), "172.17.0.1".parse().unwrap()),
            ("eth0".to_owned(), "10.200.0.3".parse().unwrap()),
            ("eth0".to_owned(), "fd00:200::3".parse().unwrap()),
        ],
        source_towards: |peer| match peer.starts_with("10.200.0.2:") {
            true => Ok(IpAddr::from([10, 200, 0, 3])),
            false => Err(std::io::ErrorKind::NetworkUnreachable.into()),
        },
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_893_456_000),
    }
}

/// cluster.env of the bundle.
fn reference_env() -> BTreeMap<String, String> {
    let labels = r#"{"app":"productcatalogservice","service.istio.io/canonical-name":"productcatalogservice","service.istio.io/canonical-revision":"latest"}"#;
    [
        ("CANONICAL_REVISION", "latest"),
        ("CANONICAL_SERVICE", "productcatalogservice"),
        ("ISTIO_INBOUND_PORTS", "3550"),
        ("ISTIO_LOCAL_EXCLUDE_PORTS", "22,15090,15021,15020"),
        ("ISTIO_METAJSON_LABELS", labels),
        ("ISTIO_META_AUTO_REGISTER_GROUP", "productcatalog"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("ISTIO_META_MESH_ID", ""),
        ("ISTIO_META_NETWORK", ""),
        (
            "ISTIO_META_POD_PORTS",
            r#"[{"name":"grpc","containerPort":3550,"protocol":""}]"#,
        ),
        ("ISTIO_META_WORKLOAD_NAME", "productcatalog"),
        ("ISTIO_NAMESPACE", "onlineboutique"),
        ("ISTIO_SERVICE", "productcatalog.onlineboutique"),
        ("ISTIO_SERVICE_CIDR", "*"),
        ("POD_NAMESPACE", "onlineboutique"),
        ("SERVICE_ACCOUNT", "productcatalog"),
        ("TRUST_DOMAIN", "cluster.local"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// PROXY_CONFIG in the bootstrap that Istio's own agent makes of the bundle.
fn reference_proxy_config() -> ProxyConfig {
    let bootstrap: Value = serde_json::from_str(include_str!("../../tests/golden/envoy/bootstrap.json")).unwrap();
    let config = &bootstrap["node"]["metadata"]["PROXY_CONFIG"];
    ProxyConfig(config.as_object().unwrap().clone())
}

#[test]
fn bundle_of_istioctl_gives_the_reference_membership() {
    let wanted = Membership {
        env: reference_env(),
        proxy_config: reference_proxy_config(),
        roots_pem: BUNDLE[2].1.to_owned(),
        hosts: vec![HostEntry {
            ip: IpAddr::from([10, 200, 0, 2]),
            names: vec!["istiod.istio-system.svc".to_owned()],
        }],
        token_file: Some("/b/istio-token".into()),
        spiffe_id: SpiffeId {
            trust_domain: "cluster.local".to_owned(),
            namespace: "onlineboutique".to_owned(),
            service_account: "productcatalog".to_owned(),
        },
        cluster_id: "Kubernetes".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        discovery_address: "istiod.istio-system.svc:15012".to_owned(),
        ca_address: "istiod.istio-system.svc:15012".to_owned(),
        node_name: "vm".to_owned(),
        instance_ips: vec!["10.200.0.3".parse().unwrap(), "fd00:200::3".parse().unwrap()],
        inbound_ports: Some(vec![3550]),
        exclude_ports: vec![22, 15090, 15021, 15020],
        dns_capture: true,
        ..Membership::default()
    };
    assert_eq!(Case::new().load().unwrap(), wanted);
}

#[test]
fn bundle_is_read_on_the_real_machine_too() {
    let mut case = Case::new();
    case.config.network.address = Some(IpAddr::from([192, 0, 2, 7]));
    case.config.network.name = Some("vm-7".to_owned());
    let membership = Join::open(&case.config, &case.host)
        .unwrap()
        .at_hand()
        .unwrap()
        .unwrap();
    assert_eq!(membership.instance_ips.first(), case.config.network.address.as_ref());
    assert_eq!(membership.node_name, "vm-7");
}

#[test]
fn edits_of_the_bundle_are_seen() {
    let case = Case::new();
    case.edit(
        "cluster.env",
        "ISTIO_INBOUND_PORTS='3550'",
        "ISTIO_INBOUND_PORTS='*'\nISTIO_SVC_IP=34.1.2.3\nCA_ADDR=ca:443\nMINE=1",
    );
    case.edit(
        "cluster.env",
        "ISTIO_META_DNS_CAPTURE='true'\n",
        "REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION='true'\n",
    );
    case.edit("mesh.yaml", "DNS_CAPTURE: \"true\"", "DNS_CAPTURE: \"false\"");
    case.edit(
        "mesh.yaml",
        "defaultConfig:\n",
        "defaultConfig:\n  readinessProbe: {tcpSocket: {port: 3550}}\n",
    );
    case.write(
        "hosts",
        "10.200.0.9 istiod-canary.istio-system.svc\n10.200.0.2 istiod.istio-system.svc\n",
    );
    std::fs::remove_file(case.host.real_path(Path::new("/b/istio-token"))).unwrap();
    let membership = case.load().unwrap();
    assert_eq!(membership.inbound_ports, None);
    assert_eq!(membership.instance_ips.first().unwrap().to_string(), "34.1.2.3");
    assert_eq!(membership.ca_address, "ca:443");
    assert_eq!(membership.env["MINE"], "1");
    assert!(!membership.dns_capture);
    let host = Some("localhost".to_owned());
    assert_eq!(membership.probe.unwrap().kind, ProbeKind::Tcp { host, port: 3550 });
    assert_eq!(membership.hosts.first().unwrap().ip.to_string(), "10.200.0.2");
    assert_eq!(membership.token_file, None);
}

#[test]
fn configuration_beats_the_bundle() {
    let mut case = Case::new();
    case.edit("cluster.env", "MESH_ID=''", "MESH_ID=''\nISTIO_SVC_IP=34.1.2.3");
    case.config.network.address = Some(IpAddr::from([10, 200, 0, 7]));
    case.config.control_plane.addresses = vec!["istiod-a.example:15012".to_owned(), "b:1".to_owned()];
    let membership = case.load().unwrap();
    assert_eq!(membership.instance_ips.first(), case.config.network.address.as_ref());
    assert_eq!(membership.discovery_address, "istiod-a.example:15012");
    assert_eq!(membership.ca_address, "istiod-a.example:15012");
    assert_eq!(
        membership.proxy_config.str("discoveryAddress"),
        Some("istiod.istio-system.svc:15012")
    );
}

#[test]
fn route_to_any_of_the_control_planes_tells_the_address() {
    let mut case = Case::new();
    let addresses = ["istiod-a.example:15012", "10.200.0.2:15012"].map(str::to_owned);
    case.config.control_plane.addresses = addresses.to_vec();
    let mut machine = vm();
    machine
        .interfaces
        .insert(0, ("eth1".to_owned(), "10.9.0.3".parse().unwrap()));
    let membership = assemble(&case.bundle().unwrap(), &case.config, &machine).unwrap();
    assert_eq!(membership.instance_ips.first().unwrap().to_string(), "10.200.0.3");
}

#[test]
fn files_that_are_missing_long_or_binary_are_refused() {
    for (name, _) in BUNDLE.iter().filter(|(name, _)| *name != "istio-token") {
        let case = Case::new();
        let path = case.host.real_path(&Path::new("/b").join(name));
        std::fs::remove_file(&path).unwrap();
        assert!(
            case.load()
                .unwrap_err()
                .starts_with(&format!("/b/{name}: is missing: join.directory"))
        );
        std::fs::create_dir(&path).unwrap();
        assert!(
            case.load()
                .unwrap_err()
                .ends_with("is not a regular file: put the right file there")
        );
    }
    let case = Case::new();
    case.write("mesh.yaml", &"#".repeat((1 << 20) + 1));
    assert_eq!(
        case.load().unwrap_err(),
        "/b/mesh.yaml: failed to read: is longer than 1048576 bytes: put the right file there"
    );
}

#[test]
fn vm_that_nobody_can_call_is_told_what_to_set() {
    let case = Case::new();
    let machine = Machine {
        interfaces: vec![("docker0".to_owned(), "172.17.0.1".parse().unwrap())],
        source_towards: |_| Err(std::io::ErrorKind::NetworkUnreachable.into()),
        ..vm()
    };
    let error = assemble(&case.bundle().unwrap(), &case.config, &machine)
        .unwrap_err()
        .to_string();
    assert!(error.contains("network.address"), "{error}");
    let machine = Machine {
        name: "(none)".to_owned(),
        ..vm()
    };
    let error = assemble(&case.bundle().unwrap(), &case.config, &machine)
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("network.name: \"(none)\""), "{error}");
}

#[test]
fn token_is_never_shown() {
    let shown = format!("{:?}", Case::new().bundle().unwrap());
    assert!(shown.contains("/b/istio-token") && !shown.contains("eyJ"), "{shown}");
}

#[test]
fn bundle_that_is_to_be_signed_is_refused_without() {
    let mut case = Case::new();
    let text =
        "[join]\ndirectory = { path = '/b', public_key = 'RWSYyLgjTU7yeFGbccI5/yKuG6Mht/69Nr95OufS50arxuNAwv2COlgh' }";
    case.config = Config::parse(Path::new("c.toml"), text).unwrap();
    case.config.network.address = Some(IpAddr::from([192, 0, 2, 7]));
    let join = Join::open(&case.config, &case.host).unwrap();
    let error = join.check().unwrap_err().to_string();
    assert!(error.starts_with("/b/SHA256SUMS.minisig: is missing"), "{error}");
    for (name, text) in [
        ("SHA256SUMS", include_str!("../../tests/golden/signed/all")),
        (
            "SHA256SUMS.minisig",
            include_str!("../../tests/golden/signed/all.minisig"),
        ),
    ] {
        case.host.write(&Path::new("/b").join(name), text, 0o600, None).unwrap();
    }
    join.check().unwrap();
    case.edit("hosts", "10.200.0.2", "10.200.0.9");
    let error = join.check().unwrap_err().to_string();
    assert!(
        error.starts_with("/b/hosts: is not the file that was signed"),
        "{error}"
    );
}

#[test]
fn file_that_the_bundle_s_owner_could_not_read_is_not_shown_to_the_network() {
    use std::os::unix::fs::{chown, symlink};
    let case = Case::new();
    chown(case.host.real_path(Path::new("/b")), Some(54_321), Some(54_321)).unwrap();
    for (name, _) in BUNDLE {
        chown(case.host.real_path(&Path::new("/b").join(name)), Some(54_321), None).unwrap();
    }
    case.load().unwrap();
    case.host
        .write(Path::new("/shadow"), "root:$y$secret:20000\n", 0o600, None)
        .unwrap();
    for (name, _) in BUNDLE {
        let path = case.host.real_path(&Path::new("/b").join(name));
        let aside = path.with_extension("aside");
        std::fs::rename(&path, &aside).unwrap();
        symlink("../shadow", &path).unwrap();
        let error = case.load().unwrap_err();
        assert!(error.contains("is a link") && !error.contains("secret"), "{error}");
        std::fs::rename(&aside, &path).unwrap();
    }
    case.write("hosts", "?");
    let check = || Join::open(&case.config, &case.host).unwrap().check().unwrap_err();
    assert!(!check().is::<ConfigError>(), "its owner ends the agent for good");
    chown(case.host.real_path(Path::new("/b")), Some(0), Some(0)).unwrap();
    assert!(check().is::<ConfigError>());
    // By a mistake of root's own, too, no word of it is shown.
    for name in ["cluster.env", "mesh.yaml", "root-cert.pem", "hosts", "istio-token"] {
        let case = Case::new();
        case.write(name, "root:$y$secret: [20000\nsecret");
        let error = case.load().unwrap_err();
        assert!(!error.contains("secret") && !error.contains("root:$"), "{error}");
    }
}
