//! One judge for every verb: what a configuration or a bundle may not say is refused by all of them in the same words,
//! with the place, the key and nothing touched; what stands beside it is taken.

use std::collections::BTreeMap;

use super::*;
use crate::config::tests::judged::rows;

const CONFIG: &str = "[join]\ndirectory = { path = \"/b\" }\n";
const CONTAINER: &str = "[workload.container]\nname = \"web\"\nimage = \"web:1\"\n";

pub(crate) const REFUSED: &str = include_str!("refused.txt");

/// Every file below a directory, with what is in it.
pub(crate) fn tree(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(tree(&path)),
            false => drop(found.insert(path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

/// Fails unless each verb that reads a bundle says of it what it should, and none of them touches anything.
fn verdict(case: &Case) -> Result<(), String> {
    verdict_of(&Join::open(&case.config, &case.host).unwrap(), case)
}

fn verdict_of(join: &Join, case: &Case) -> Result<(), String> {
    let root = case.host.real_path(Path::new("/"));
    let before = tree(&root);
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

/// The file of the bundle that the first word of a row's `input` says, with the row's edit.
pub(crate) fn edited(input: &str) -> (&'static str, String) {
    let (file, edit) = input.split_once(' ').expect(input);
    match file {
        "env" => {
            // A shell takes the later line, and the error names it.
            let key = edit.split_once('=').map_or(edit, |(key, _)| key);
            let others = BUNDLE[0].1.lines().filter(|line| !line.starts_with(&format!("{key}=")));
            (
                "cluster.env",
                format!("{edit}\n{}\n", others.collect::<Vec<_>>().join("\n")),
            )
        }
        "mesh" => (
            "mesh.yaml",
            BUNDLE[1]
                .1
                .replace("  proxyMetadata:", &format!("  {edit}\n  proxyMetadata:")),
        ),
        "meta" => (
            "mesh.yaml",
            BUNDLE[1]
                .1
                .replace("  proxyMetadata:\n", &format!("  proxyMetadata:\n    {edit}\n")),
        ),
        "hosts" => ("hosts", edit.to_owned()),
        "token" => ("istio-token", edit.to_owned()),
        "roots" => ("root-cert.pem", certificates(edit)),
        other => panic!("{other}"),
    }
}

/// `text` with certificates in place of their names.
fn certificates(text: &str) -> String {
    let policies = "2.5.29.32"
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect::<Vec<u64>>();
    let made = |name: &str, is_ca: rcgen::IsCa, extension: Option<&[u64]>| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = is_ca;
        params.custom_extensions.extend(extension.map(|oid| {
            // One policy, 1.3.6.1.4.1.311.21.8.
            let content = [
                0x30, 0x0d, 0x30, 0x0b, 0x06, 0x09, 0x2b, 6, 1, 4, 1, 0x82, 0x37, 0x15, 8,
            ];
            let mut extension = rcgen::CustomExtension::from_oid_content(oid, content.to_vec());
            extension.set_criticality(true);
            extension
        }));
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    };
    let authority = || rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    text.replace("ROOT", BUNDLE[2].1)
        .replace("LEAF", &made("leaf", rcgen::IsCa::ExplicitNoCa, None))
        .replace("CRITICAL", &made("critical", authority(), Some(&policies)))
}

#[test]
fn bundle_is_refused_by_every_verb_alike_for_what_it_may_not_say() {
    let mut wrong = Vec::new();
    let case = Case::new();
    let join = Join::open(&case.config, &case.host).unwrap();
    for (input, begins, holds) in rows(REFUSED) {
        let (name, text) = edited(&input);
        case.write(name, &text);
        let said = verdict_of(&join, &case);
        case.write(name, BUNDLE.iter().find(|(file, _)| *file == name).unwrap().1);
        let error = said.err().unwrap_or_else(|| "it is taken".to_owned());
        if !(error.starts_with(&begins) && error.contains(&holds)) {
            wrong.push(format!("{input:?}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn faults_of_a_bundle_are_told_at_once() {
    let case = Case::new();
    case.edit("cluster.env", "'3550'", "'http'");
    case.edit(
        "cluster.env",
        "ISTIO_META_DNS_CAPTURE='true'",
        "ISTIO_META_DNS_CAPTURE='on'",
    );
    case.edit(
        "mesh.yaml",
        "  proxyMetadata:",
        "  statsdUdpAddress: a:1\n  proxyMetadata:",
    );
    case.write("root-cert.pem", "junk");
    let error = verdict(&case).unwrap_err();
    for part in [
        "/b/cluster.env:3:1: ISTIO_INBOUND_PORTS: ",
        "/b/cluster.env:8:1: ISTIO_META_DNS_CAPTURE: ",
        "/b/mesh.yaml:3:21: defaultConfig.statsdUdpAddress: ",
        "/b/root-cert.pem: has no certificate",
    ] {
        assert!(error.lines().any(|line| line.starts_with(part)), "{part}: {error}");
    }
}

#[test]
fn published_port_that_nothing_captures_is_refused() {
    let published = |ports: &str, network: &str, captured: &str| {
        let mut case = Case::new();
        let text = format!("{CONFIG}{CONTAINER}ports = {ports}\n{network}");
        case.config = Config::parse(Path::new("c.toml"), &text).unwrap();
        case.edit("cluster.env", "ISTIO_INBOUND_PORTS='3550'", captured);
        verdict(&case)
    };
    for (captured, key) in [
        (
            "ISTIO_INBOUND_PORTS='3550'",
            "/b/cluster.env:3:1: ISTIO_INBOUND_PORTS: ",
        ),
        ("ISTIO_INBOUND_PORTS=''", "/b/cluster.env:3:1: ISTIO_INBOUND_PORTS: "),
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
        "/b/cluster.env:4:1: ISTIO_LOCAL_EXCLUDE_PORTS: ",
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
fn values_beside_refused_ones_are_taken() {
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
fn exclusions_are_read_at_the_join() {
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

#[test]
fn value_is_told_with_the_place_that_it_is_from() {
    let mut case = Case::new();
    let text = format!("{CONFIG}[network]\naddress = \"10.200.0.3\"\ncluster_domain = \"corp.local\"\n");
    case.config = Config::parse(Path::new("c.toml"), &text).unwrap();
    case.edit(
        "cluster.env",
        "MESH_ID=''",
        "MESH_ID=''\nDD_API_KEY=hunter2\nSECRET_TTL=12h",
    );
    let probe = "  readinessProbe: {httpGet: {port: 80, httpHeaders: [{name: Authorization, value: hunter2}]}}";
    case.edit("mesh.yaml", "  proxyMetadata:", &format!("{probe}\n  proxyMetadata:"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let settings = runtime
        .block_on(Join::open(&case.config, &case.host).unwrap().settings())
        .unwrap();
    for (key, origin) in [
        ("namespace", "/b/cluster.env:18:1 POD_NAMESPACE"),
        ("addresses", "c.toml:4:1"),
        ("name", "discovered on this VM"),
        ("cluster_domain", "c.toml:5:1"),
        ("discovery_address", "/b/mesh.yaml:2:21"),
        ("ca_address", "that of istiod"),
        ("inbound_ports", "/b/cluster.env:3:1 ISTIO_INBOUND_PORTS"),
        ("outbound.ports", "Istio's default"),
        ("roots", "/b/root-cert.pem"),
        ("hosts", "/b/hosts"),
        ("proxy_config.drainDuration", "Istio's default"),
        ("env.TRUST_DOMAIN", "/b/cluster.env:20:1 TRUST_DOMAIN"),
    ] {
        let setting = settings.iter().find(|setting| setting.key == key).expect(key);
        assert_eq!(setting.origin, origin, "{key}");
    }
    assert!(!format!("{settings:?}").contains("hunter2"));
    let unheeded = case.load().unwrap().unheeded;
    assert_eq!(unheeded.len(), 1, "{unheeded:?}");
    assert!(
        unheeded[0].starts_with("/b/cluster.env:11:1: SECRET_TTL: is not heeded: identity.ttl"),
        "{unheeded:?}"
    );
}

#[test]
fn field_of_a_probe_that_nobody_knows_is_told() {
    let case = Case::new();
    let probe = "  readinessProbe: {httpGet: {port: 80, retries: 3}}";
    case.edit("mesh.yaml", "  proxyMetadata:", &format!("{probe}\n  proxyMetadata:"));
    let unheeded = case.load().unwrap().unheeded;
    let told = "/b/mesh.yaml:3:19: defaultConfig.readinessProbe: httpGet.retries is not heeded: this agent knows";
    assert!(unheeded.iter().any(|it| it.starts_with(told)), "{unheeded:?}");
}

#[test]
fn value_that_a_later_line_takes_the_place_of_is_told() {
    let case = Case::new();
    case.edit(
        "cluster.env",
        "MESH_ID=''",
        "MESH_ID=''\nISTIO_INBOUND_PORTS='9999'\nTRUST_DOMAIN='cluster.local'",
    );
    let membership = case.load().unwrap();
    assert_eq!(membership.inbound_ports, Some(vec![9999]));
    let [told] = membership.unheeded.as_slice() else {
        panic!("{:?}", membership.unheeded);
    };
    assert!(
        told.starts_with("/b/cluster.env:3:1: ISTIO_INBOUND_PORTS: is not heeded: a later line"),
        "{told}"
    );
}
