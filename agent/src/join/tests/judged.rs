//! One judge for every verb: what a configuration or a bundle may not say is refused by all of them in the same words,
//! with the place, the key and nothing touched; what stands beside it is taken.

use std::collections::BTreeMap;

use super::*;

const CONFIG: &str = "[join]\ndirectory = { path = \"/b\" }\n";
const CONTAINER: &str = "[workload.container]\nname = \"web\"\nimage = \"web:1\"\n";

/// Lines that become line 1 of cluster.env, what the error begins with after the line, and the remedy in it.
const VARIABLES: &[(&str, &str, &str)] = &[
    (
        "ISTIO_SERVICE_CIDR='10.0.0.0/33'",
        "ISTIO_SERVICE_CIDR",
        "such as 10.0.0.0/8",
    ),
    (
        "ISTIO_SERVICE_CIDR='*,10.0.0.0/8'",
        "ISTIO_SERVICE_CIDR",
        "such as 10.0.0.0/8",
    ),
    ("ISTIO_SERVICE_CIDR='tenth'", "ISTIO_SERVICE_CIDR", "such as 10.0.0.0/8"),
    (
        "ISTIO_SERVICE_EXCLUDE_CIDR='*'",
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        "such as 10.0.0.0/8",
    ),
    (
        "ISTIO_SERVICE_EXCLUDE_CIDR='10.0.0.0/8;a'",
        "ISTIO_SERVICE_EXCLUDE_CIDR",
        "such as 10.0.0.0/8",
    ),
    (
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE='9300-9400'",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        "from 1 to 65535",
    ),
    (
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE='0'",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",
        "from 1 to 65535",
    ),
    (
        "ISTIO_INBOUND_PORTS='15006,15020'",
        "ISTIO_INBOUND_PORTS",
        "the mesh's own",
    ),
    (
        "ISTIO_INBOUND_PORTS='3550,15090'",
        "ISTIO_INBOUND_PORTS",
        "the mesh's own",
    ),
    (
        "ISTIO_INBOUND_INTERCEPTION_MODE='TPROXY'",
        "ISTIO_INBOUND_INTERCEPTION_MODE",
        "REDIRECT",
    ),
    (
        "ISTIO_META_INTERCEPTION_MODE='NONE'",
        "ISTIO_META_INTERCEPTION_MODE",
        "REDIRECT",
    ),
    (
        "ISTIO_META_INTERCEPTION_MODE='FOO'",
        "ISTIO_META_INTERCEPTION_MODE",
        "REDIRECT",
    ),
    ("ISTIO_METAJSON_LABELS='app'", "ISTIO_METAJSON_LABELS", "JSON object"),
    (
        "ISTIO_METAJSON_LABELS='[\"app\"]'",
        "ISTIO_METAJSON_LABELS",
        "JSON object",
    ),
    (
        "ISTIO_METAJSON_LABELS='{\"app\":1}'",
        "ISTIO_METAJSON_LABELS",
        "\"app\" must be a string",
    ),
    (
        "ISTIO_METAJSON_ANNOTATIONS='a=b'",
        "ISTIO_METAJSON_ANNOTATIONS",
        "JSON object",
    ),
    ("ISTIO_META_POD_PORTS='3550'", "ISTIO_META_POD_PORTS", "containerPort"),
    (
        "ISTIO_META_POD_PORTS='[{\"containerPort\":355000}]'",
        "ISTIO_META_POD_PORTS",
        "from 1 to 65535",
    ),
    ("ISTIO_SVC_IP='127.0.0.1'", "ISTIO_SVC_IP", "loopback"),
    ("ISTIO_SVC_IP='fe80::1'", "ISTIO_SVC_IP", "link-local"),
    ("CA_ADDR='https://ca:443'", "CA_ADDR", "host:port"),
];

/// Lines that become line 3 of mesh.yaml, the field that the error names, and the remedy in it.
const FIELDS: &[(&str, &str, &str)] = &[
    ("interceptionMode: TPROXY", "interceptionMode", "REDIRECT"),
    ("interceptionMode: NONE", "interceptionMode", "REDIRECT"),
    ("interceptionMode: 1", "interceptionMode", "REDIRECT"),
    ("interception_mode: FOO", "interceptionMode", "REDIRECT"),
    ("drain_duration: soon", "drainDuration", "such as \"45s\""),
    ("drainDuration: 100ms", "drainDuration", "such as \"45s\""),
    ("status_port: many", "statusPort", "whole number"),
    ("concurrency: -1", "concurrency", "from 0"),
];

/// Every file below a directory, with its text.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(tree(&path)),
            false => drop(found.insert(path.display().to_string(), std::fs::read_to_string(&path).unwrap())),
        }
    }
    found
}

/// What each verb that reads a bundle says of it; and that none of them touches anything.
fn verdict(case: &Case) -> Result<(), String> {
    let root = case.host.real_path(Path::new("/"));
    let before = tree(&root);
    let join = Join::open(&case.config, &case.host).unwrap();
    let files = BUNDLE.map(|(name, _)| (name, case.host.text(&Path::new("/b").join(name))));
    let files: Vec<_> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let said = [
        ("start", join.check().map_err(|error| error.to_string())),
        ("plan", join.at_hand().map(drop).map_err(|error| error.to_string())),
        (
            "refresh",
            runtime
                .block_on(join.fetch())
                .map(drop)
                .map_err(|error| error.to_string()),
        ),
        (
            "import",
            check(&case.config, Path::new("/b"), &files)
                .map(drop)
                .map_err(|error| error.to_string()),
        ),
    ];
    assert_eq!(tree(&root), before, "something was touched");
    let (_, first) = &said[0];
    for (verb, result) in &said {
        assert_eq!(result, first, "{verb}");
    }
    first.clone()
}

#[track_caller]
fn expect(said: Result<(), String>, row: &str, begins: &str, holds: &str) {
    let error = said.expect_err(row);
    assert!(error.starts_with(begins), "{row}: {error}");
    assert!(error.contains(holds), "{row}: {error}");
}

#[test]
fn what_a_bundle_may_not_say_is_refused_by_every_verb_alike() {
    for (line, key, holds) in VARIABLES {
        let case = Case::new();
        // A shell takes the later line, and the error names it.
        let name = line.split_once('=').unwrap().0;
        let text = case.host.text(Path::new("/b/cluster.env"));
        let kept: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with(&format!("{name}=")))
            .collect();
        case.write("cluster.env", &format!("{line}\n{}\n", kept.join("\n")));
        expect(verdict(&case), line, &format!("/b/cluster.env:1: {key}: "), holds);
    }
    for (line, field, holds) in FIELDS {
        let case = Case::new();
        case.edit("mesh.yaml", "  proxyMetadata:", &format!("  {line}\n  proxyMetadata:"));
        expect(
            verdict(&case),
            line,
            &format!("/b/mesh.yaml:3: defaultConfig.{field}: "),
            holds,
        );
    }
    let case = Case::new();
    let metadata = "proxyMetadata:\n    ISTIO_META_INTERCEPTION_MODE: TPROXY";
    case.edit("mesh.yaml", "proxyMetadata:", metadata);
    let place = "/b/mesh.yaml:4: defaultConfig.proxyMetadata.ISTIO_META_INTERCEPTION_MODE: ";
    expect(verdict(&case), metadata, place, "REDIRECT");
}

#[test]
fn a_published_port_that_nothing_captures_is_refused() {
    let published = |ports: &str, network: &str, captured: &str| {
        let mut case = Case::new();
        let text = format!("{CONFIG}{CONTAINER}ports = {ports}\n{network}");
        case.config = Config::parse(Path::new("c.toml"), &text).unwrap();
        case.edit("cluster.env", "ISTIO_INBOUND_PORTS='3550'", captured);
        verdict(&case)
    };
    for (captured, key) in [
        ("ISTIO_INBOUND_PORTS='3550'", "/b/cluster.env:3: ISTIO_INBOUND_PORTS: "),
        ("ISTIO_INBOUND_PORTS=''", "/b/cluster.env:3: ISTIO_INBOUND_PORTS: "),
    ] {
        let said = published("['9999:3550']", "", captured);
        expect(
            said,
            captured,
            key,
            "leaves port 9999 alone, which workload.container.ports publishes",
        );
    }
    let all = "ISTIO_INBOUND_PORTS='*'";
    expect(
        published("['22:22']", "", all),
        all,
        "/b/cluster.env:4: ISTIO_LOCAL_EXCLUDE_PORTS: ",
        "port 22",
    );
    published("['9999:3550']", "", all).unwrap();
    published("['3550:3550']", "", "ISTIO_INBOUND_PORTS='3550'").unwrap();
    // Where the operator redirects, the operator knows what.
    published(
        "['9999:3550']",
        "[intercept]\nbackend = 'none'\n",
        "ISTIO_INBOUND_PORTS='3550'",
    )
    .unwrap();
}

#[test]
fn what_stands_beside_what_is_refused_is_taken() {
    for line in [
        "ISTIO_SERVICE_CIDR='10.0.0.0/8, 10.96.0.1'",
        "ISTIO_SERVICE_CIDR=''",
        "ISTIO_SERVICE_EXCLUDE_CIDR='168.63.129.16'",
        "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE='2049,9300'",
        "ISTIO_INBOUND_INTERCEPTION_MODE='REDIRECT'",
        "ISTIO_META_INTERCEPTION_MODE=''",
        "ISTIO_METAJSON_ANNOTATIONS='{\"a\":\"b\"}'",
        "ISTIO_META_POD_PORTS=''",
        "ISTIO_SVC_IP='34.1.2.3'",
    ] {
        let case = Case::new();
        case.edit("cluster.env", "MESH_ID=''", &format!("MESH_ID=''\n{line}"));
        verdict(&case).expect(line);
    }
    for line in [
        "interceptionMode: REDIRECT",
        "interception_mode: 0",
        "drain_duration: 1m0s",
        "statusPort: '15020'",
    ] {
        let case = Case::new();
        case.edit("mesh.yaml", "  proxyMetadata:", &format!("  {line}\n  proxyMetadata:"));
        verdict(&case).expect(line);
    }
    let case = Case::new();
    for name in ["cluster.env", "mesh.yaml", "hosts"] {
        let text = case.host.text(&Path::new("/b").join(name));
        case.write(name, &format!("\u{feff}{text}"));
    }
    let membership = case.load().unwrap();
    assert_eq!(membership.inbound_ports, Some(vec![3550]));
}

#[test]
fn what_leaves_the_vm_past_envoy_is_read_at_the_join() {
    let case = Case::new();
    case.edit(
        "cluster.env",
        "ISTIO_SERVICE_CIDR='*'",
        "ISTIO_SERVICE_CIDR='10.1.2.3/8'\nISTIO_SERVICE_EXCLUDE_CIDR='168.63.129.16,fd00::/8'\n\
         ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE='2049, 9300'",
    );
    let outbound = case.load().unwrap().outbound;
    assert_eq!(outbound.networks, Some(vec!["10.0.0.0/8".parse().unwrap()]));
    let excluded = ["168.63.129.16/32", "fd00::/8"].map(|network| network.parse().unwrap());
    assert_eq!(outbound.exclude_networks, excluded);
    assert_eq!(outbound.exclude_ports, [2049, 9300]);
}
