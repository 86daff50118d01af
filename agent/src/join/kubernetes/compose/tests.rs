//! Beside istioctl: `tests/golden/istioctl/<case>` holds objects, and the files that istioctl made of them when
//! they were in a real API server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::super::group_ref::Ingress;
use super::*;
use crate::config::KeyOrigin;
use crate::facts::ProxyConfig;
use crate::join::{cluster_env, hosts_lines, mesh_yaml, proxy_config, readiness_probe};
use crate::kube::Service;

/// Cases that differ from istioctl's files, why, and in what. All others mean exactly what those mean.
const DIFFERENCES: [(&str, &str, Difference); 12] = [
    ("no_metadata", "istioctl crashes", Difference::Nothing),
    (
        "annotation_on_a_mesh_without_metadata",
        "istioctl crashes",
        Difference::Nothing,
    ),
    (
        "empty_metadata_and_template",
        "istioctl asks for a token of the service account \"\"",
        Difference::ServiceAccount,
    ),
    (
        "no_service_account",
        "istioctl asks for a token of the service account \"\"",
        Difference::ServiceAccount,
    ),
    (
        "mesh_without_trust_domain",
        "istioctl leaves it empty, where istiod has its default",
        Difference::TrustDomain,
    ),
    (
        "mesh_empty",
        "istioctl leaves it empty, where istiod has its default",
        Difference::TrustDomain,
    ),
    (
        "mesh_full",
        "fields that this version of the API doesn't know are kept for the version that does",
        Difference::Fields(&["notAField", "parentShutdownDuration"]),
    ),
    (
        "mesh_snake_case",
        "inner fields keep their spelling, which protobuf's JSON has too",
        Difference::Fields(&["proxyStatsMatcher", "tracing"]),
    ),
    (
        "ingress_several",
        "istioctl takes the first address only",
        Difference::MoreHosts,
    ),
    (
        "ingress_external_ips",
        "istioctl takes the first address only",
        Difference::MoreHosts,
    ),
    (
        "ingress_host_name",
        "istioctl writes an empty file; the name is resolved",
        Difference::MoreHosts,
    ),
    (
        "annotation_in_the_spec",
        "the other name that the mesh has for istiod is one that only the cluster's DNS knows",
        Difference::MoreHosts,
    ),
];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Difference {
    /// istioctl made nothing to compare with.
    Nothing,
    /// The service account is empty there, and `default` here.
    ServiceAccount,
    /// The trust domain is empty there, and `cluster.local` here.
    TrustDomain,
    /// Fields of mesh.yaml differ.
    Fields(&'static [&'static str]),
    /// Entries that are there are here, too, and more.
    MoreHosts,
}

#[derive(Deserialize)]
struct Case {
    options: Options,
    workload_group: WorkloadGroup,
    mesh: ConfigMap,
    roots: ConfigMap,
    ingress: Option<Service>,
}

#[derive(Deserialize)]
struct Options {
    revision: String,
    istio_namespace: String,
    cluster_id: String,
    auto_register: bool,
    dns_capture: bool,
    /// `--ingressIP`.
    ingress: Option<IpAddr>,
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/istioctl")
}

fn cases() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn read(case: &str, name: &str) -> Option<String> {
    std::fs::read_to_string(golden().join(case).join(name)).ok()
}

pub(in crate::join) fn compose(case: &str) -> Bundle {
    made_of(serde_json::from_str(&read(case, "objects.json").unwrap()).unwrap())
}

fn made_of(case: Case) -> Bundle {
    let group_ref = GroupRef {
        namespace: case.workload_group.metadata.namespace.clone(),
        workload_group: case.workload_group.metadata.name.clone(),
        cluster_id: case.options.cluster_id,
        revision: case.options.revision,
        istio_namespace: case.options.istio_namespace,
        cluster_domain: "cluster.local".to_owned(),
        ingress: Ingress::Given(String::new()),
        auto_register: case.options.auto_register,
        dns_capture: case.options.dns_capture,
        keys: KeyOrigin::Kubernetes,
    };
    // Stands for a resolver.
    let resolve = |name: &str| name.parse().unwrap_or_else(|_| IpAddr::from([203, 0, 113, 99]));
    let service = case.ingress.iter().flat_map(Service::outside).map(resolve);
    let objects = Objects {
        ingress: case.options.ingress.into_iter().chain(service).collect(),
        workload_group: case.workload_group,
        mesh: case.mesh,
        roots: case.roots,
    };
    bundle(&objects, &group_ref).unwrap()
}

fn difference(case: &str) -> Option<Difference> {
    let found = DIFFERENCES.iter().find(|(name, _, _)| *name == case);
    found.map(|(_, _, difference)| *difference)
}

/// Values that are JSON, and lists whose order says nothing, are compared as what they are.
fn env_meaning(env: BTreeMap<String, String>) -> BTreeMap<String, Value> {
    let meaning = |(key, value): (String, String)| {
        let parsed = match key.as_str() {
            "ISTIO_METAJSON_LABELS" | "ISTIO_META_POD_PORTS" => serde_json::from_str(&value).unwrap(),
            "ISTIO_INBOUND_PORTS" => {
                let mut ports: Vec<&str> = value.split(',').collect();
                ports.sort_unstable();
                json!(ports)
            }
            _ => Value::String(value),
        };
        (key, parsed)
    };
    env.into_iter().map(meaning).collect()
}

fn mesh_meaning(ProxyConfig(mut fields): ProxyConfig) -> Value {
    let metadata = fields.get_mut("proxyMetadata").unwrap().as_object_mut().unwrap();
    for key in ["ISTIO_METAJSON_LABELS", "ISTIO_META_POD_PORTS"] {
        if let Some(Value::String(text)) = metadata.get(key) {
            let parsed = serde_json::from_str(text).unwrap();
            metadata.insert(key.to_owned(), parsed);
        }
    }
    fields.values_mut().for_each(drop_empty_lists);
    if let Some(probe) = fields.get_mut("readinessProbe") {
        *probe = json!(format!("{:?}", readiness_probe::parse(probe, false)));
    }
    Value::Object(fields)
}

/// Protobuf has no lists that are there and empty.
fn drop_empty_lists(value: &mut Value) {
    if let Value::Object(fields) = value {
        fields.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        fields.values_mut().for_each(drop_empty_lists);
        if let Some(probe) = fields.get_mut("readinessProbe") {
            *probe = json!(format!("{:?}", readiness_probe::parse(probe, false)));
        }
    }
}

fn explain_away(difference: Option<Difference>, ours: &mut BTreeMap<String, Value>, mesh: &mut Value) {
    let (key, wanted) = match difference {
        Some(Difference::ServiceAccount) => ("SERVICE_ACCOUNT", "default"),
        Some(Difference::TrustDomain) => ("TRUST_DOMAIN", "cluster.local"),
        Some(Difference::Fields(fields)) => {
            for field in fields {
                assert!(mesh.as_object_mut().unwrap().remove(*field).is_some(), "{field}");
            }
            return;
        }
        _ => return,
    };
    assert_eq!(ours.insert(key.to_owned(), json!("")), Some(json!(wanted)));
    assert_eq!(mesh["proxyMetadata"][key].take(), json!(wanted));
    mesh["proxyMetadata"][key] = json!("");
}

#[test]
fn bundles_mean_what_istioctls_files_mean() {
    let cases = cases();
    assert!(cases.len() >= 49, "only {} cases", cases.len());
    for case in &cases {
        let (ours, difference) = (compose(case), difference(case));
        assert_eq!(
            difference == Some(Difference::Nothing),
            read(case, "cluster.env").is_none(),
            "{case}"
        );
        let Some(env) = read(case, "cluster.env") else { continue };
        let mut our_env = env_meaning(ours.env);
        let mut our_mesh = mesh_meaning(ours.proxy_config);
        let their_mesh = mesh_yaml::parse(&read(case, "mesh.yaml").unwrap()).unwrap();
        let mut their_mesh = mesh_meaning(their_mesh.proxy_config);
        explain_away(difference, &mut our_env, &mut our_mesh);
        if let Some(Difference::Fields(fields)) = difference {
            fields
                .iter()
                .for_each(|field| drop(their_mesh.as_object_mut().unwrap().remove(*field)));
        }
        let their_env = cluster_env::parse(&env).unwrap().values;
        assert_eq!(our_env, env_meaning(their_env), "{case}: cluster.env");
        assert_eq!(our_mesh, their_mesh, "{case}: mesh.yaml");
        assert_eq!(ours.roots, read(case, "root-cert.pem").unwrap(), "{case}");
        // It fails before it writes this file.
        let theirs = read(case, "hosts").map_or_else(|| ours.hosts.clone(), |text| entries(&text));
        match difference {
            Some(Difference::MoreHosts) => more_hosts(case, &theirs, &ours.hosts),
            _ => assert_eq!(ours.hosts, theirs, "{case}: hosts"),
        }
    }
}

fn entries(text: &str) -> Vec<HostEntry> {
    let entries = hosts_lines::parse(text).unwrap();
    entries.into_iter().map(|(_, entry)| entry).collect()
}

/// Checks that istioctl's entries come first.
fn more_hosts(case: &str, theirs: &[HostEntry], ours: &[HostEntry]) {
    assert_ne!(theirs, ours, "{case}: differs in nothing");
    for (their, our) in theirs.iter().zip(ours) {
        assert_eq!(
            (their.ip, their.names.first()),
            (our.ip, our.names.first()),
            "{case}: hosts"
        );
    }
    assert!(theirs.len() <= ours.len(), "{case}: hosts");
}

#[test]
fn objects_that_istioctl_makes_nothing_of_are_a_bundle_too() {
    for case in ["no_metadata", "annotation_on_a_mesh_without_metadata"] {
        let ours = compose(case);
        assert_eq!(ours.env["ISTIO_META_WORKLOAD_NAME"], "productcatalog", "{case}");
        proxy_config::effective(&ours.proxy_config, None).unwrap();
    }
    let annotated = compose("annotation_on_a_mesh_without_metadata");
    assert_eq!(annotated.env["A"], "1");
}

#[test]
fn switches_of_this_vm_win_over_those_of_the_mesh() {
    let text = read("no_dns_capture_no_auto_register", "objects.json").unwrap();
    let mut case: Case = serde_json::from_str(&text).unwrap();
    let mesh =
        "defaultConfig:\n  proxyMetadata:\n    ISTIO_META_DNS_CAPTURE: 'true'\n    ISTIO_META_AUTO_REGISTER_GROUP: g\n";
    case.mesh.data.insert(MESH_KEY.to_owned(), mesh.to_owned());
    let ours = made_of(case);
    for (key, wanted) in [
        ("ISTIO_META_DNS_CAPTURE", "false"),
        ("ISTIO_META_AUTO_REGISTER_GROUP", ""),
    ] {
        assert_eq!(ours.env[key], wanted);
        assert_eq!(ours.proxy_config.metadata()[key], wanted);
    }
}

/// A group without ports, with these annotations of its workloads.
fn without_ports(annotations: &[(&str, &str)]) -> Case {
    let mut case: Case = serde_json::from_str(&read("no_ports", "objects.json").unwrap()).unwrap();
    let ours = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    case.workload_group.spec.metadata.annotations.extend(ours);
    case
}

#[test]
fn exclusions_by_annotation_or_metadata_are_heeded() {
    let metadata = r#"{"proxyMetadata":{"ISTIO_LOCAL_EXCLUDE_PORTS":"22,9100","ISTIO_SERVICE_CIDR":"10.96.0.0/12"}}"#;
    let env = made_of(without_ports(&[(PROXY_CONFIG, metadata)])).env;
    assert_eq!(env["ISTIO_INBOUND_PORTS"], "*");
    assert_eq!(env["ISTIO_LOCAL_EXCLUDE_PORTS"], "22,15090,15021,15020,9100");
    assert_eq!(env["ISTIO_SERVICE_CIDR"], "10.96.0.0/12");
    let annotations = [
        ("traffic.sidecar.istio.io/excludeInboundPorts", "9100"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "10.1.0.0/16"),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "25"),
        ("traffic.sidecar.istio.io/excludeInterfaces", "eth1"),
    ];
    let bundle = made_of(without_ports(&annotations));
    for (key, wanted) in [
        ("ISTIO_LOCAL_EXCLUDE_PORTS", "22,15090,15021,15020,9100"),
        ("ISTIO_SERVICE_EXCLUDE_CIDR", "10.1.0.0/16"),
        ("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", "25"),
        ("ISTIO_EXCLUDE_INTERFACES", "eth1"),
    ] {
        assert_eq!(bundle.env[key], wanted);
    }
    let place = bundle.origins.env.place("ISTIO_EXCLUDE_INTERFACES").to_string();
    let wanted = "spec.metadata.annotations[traffic.sidecar.istio.io/excludeInterfaces]";
    assert!(
        place.starts_with("workloadgroup ") && place.ends_with(wanted),
        "{place}"
    );
}

#[test]
fn annotation_that_is_nearly_istio_s_is_a_slip() {
    let unknown = |objects: &mut Objects| {
        let annotations = &mut objects.workload_group.metadata.annotations;
        annotations.insert(
            "traffic.sidecar.istio.io/excludeInboundPort".to_owned(),
            "9100".to_owned(),
        );
    };
    let said = error(unknown);
    let wanted = "workloadgroup shop/productcatalog: metadata.annotations[traffic.sidecar.istio.io/excludeInboundPort]: is unknown: \
                  did you mean traffic.sidecar.istio.io/excludeInboundPorts?";
    assert_eq!(said, wanted);
}

#[test]
fn keys_that_no_shell_sets_stay_out_of_cluster_env() {
    let env = BTreeMap::from([("a-b", "1"), ("A_1", "it's"), ("1A", ""), ("", "")])
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let settable = env::settable(env);
    assert_eq!(settable, BTreeMap::from([("A_1".to_owned(), "it's".to_owned())]));
}

/// The error about the reference's objects after `edit`.
fn error(edit: impl FnOnce(&mut Objects)) -> String {
    let case: Case = serde_json::from_str(&read("reference", "objects.json").unwrap()).unwrap();
    let group_ref = GroupRef {
        namespace: "shop".to_owned(),
        workload_group: "productcatalog".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        revision: String::new(),
        istio_namespace: "istio-system".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        ingress: Ingress::Given(String::new()),
        auto_register: true,
        dns_capture: true,
        keys: KeyOrigin::Kubernetes,
    };
    let mut objects = Objects {
        workload_group: case.workload_group,
        mesh: case.mesh,
        roots: case.roots,
        ingress: Vec::new(),
    };
    edit(&mut objects);
    bundle(&objects, &group_ref).unwrap_err().to_string()
}

/// Gives the workloads an annotation with fields of ProxyConfig.
fn annotated(yaml: &'static str) -> impl FnOnce(&mut Objects) {
    move |objects| {
        let annotations = &mut objects.workload_group.spec.metadata.annotations;
        annotations.insert(PROXY_CONFIG.to_owned(), yaml.to_owned());
    }
}

#[test]
fn objects_that_lack_what_is_needed_are_named() {
    let cases = [
        (
            error(|objects| objects.mesh.data.clear()),
            "configmap istio-system/istio: mesh: is missing",
        ),
        (
            error(|objects| drop(objects.mesh.data.insert("mesh".to_owned(), "a: [".to_owned()))),
            "configmap istio-system/istio: mesh: is not valid YAML",
        ),
        (
            error(|objects| objects.roots.data.clear()),
            "configmap shop/istio-ca-root-cert: root-cert.pem: is missing",
        ),
        (
            error(annotated("proxyMetadata: {A: 1}")),
            "workloadgroup shop/productcatalog: spec.metadata.annotations[proxy.istio.io/config]: proxyMetadata.A: must be a string",
        ),
        (
            error(annotated(r#"proxyMetadata: {A: "\0"}"#)),
            "workloadgroup shop/productcatalog: spec.metadata.annotations[proxy.istio.io/config]: proxyMetadata.A: has a NUL byte",
        ),
    ];
    for (error, wanted) in cases {
        assert!(error.starts_with(wanted), "{error}");
    }
}
