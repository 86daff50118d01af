use std::fs;
use std::path::PathBuf;

use clap::Parser;

use super::*;
use crate::cli::{Arguments, Verb};

const GROUP: &str = "--namespace onlineboutique --workload-group productcatalog --service productcatalogservice";

/// The file in tests/golden/manifests, and the options that make it.
fn goldens() -> [(&'static str, String); 7] {
    let vm = "--google-service-account vm@boutique.iam.gserviceaccount.com";
    [
        (
            "registered.yaml",
            format!("{GROUP} --port grpc:3550 --with-namespace {vm}"),
        ),
        (
            "revision.yaml",
            format!(
                "{GROUP} --port http:80:8080 --port grpc-admin:9090 --label version=v1 --network vms --revision canary \
                 --istio-namespace mesh --ingress-service vms.ingress --user jane --group vms \
                 --joining-service-account onlineboutique/joiner"
            ),
        ),
        (
            "listed.yaml",
            format!("{GROUP} --port grpc:3550 --address 10.200.0.3 --address fd00:200::3 --no-ingress-service {vm}"),
        ),
        (
            "other-cluster.yaml",
            format!("{GROUP} --port grpc:3550 --address 10.200.0.3 --other-cluster --with-namespace {vm}"),
        ),
        (
            "other-network.yaml",
            format!("{GROUP} --port grpc:80:3550 --gateway 34.5.6.7 --other-cluster"),
        ),
        (
            "remote-secret.yaml",
            format!("{GROUP} --port grpc:3550 --remote-secret --other-cluster"),
        ),
        (
            "requested.yaml",
            format!(
                "{GROUP} --port grpc:3550 --expose istiod --expose services --strict --allow onlineboutique/checkout \
                 --egress ./* --scrape 10.200.0.3 --scrape fd00:200::3 {vm}"
            ),
        ),
    ]
}

fn arguments(options: &str) -> Result<ManifestsArguments, clap::Error> {
    let words = ["istio-vm-agent", "manifests"]
        .into_iter()
        .chain(options.split_whitespace());
    match Arguments::try_parse_from(words)?.verb {
        Verb::Manifests(arguments) => Ok(*arguments),
        verb => panic!("{verb:?}"),
    }
}

fn problems(options: &str) -> String {
    manifests::problems(&wanted(&arguments(options).unwrap(), None).unwrap()).join("\n")
}

fn printed(options: &str, config: Option<&Config>) -> Result<String> {
    text(Output::Text, &wanted(&arguments(options)?, config)?)
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/manifests")
        .join(name)
}

#[test]
fn manifests_are_printed_as_they_were_looked_at() {
    for (name, options) in goldens() {
        let written = fs::read_to_string(golden(name)).unwrap_or_default();
        let remedy = "look at what `cargo test -p istio-vm-agent --lib -- --ignored write_the_manifests` changes";
        assert!(printed(&options, None).unwrap() == written, "{name} differs: {remedy}");
    }
}

#[test]
#[ignore = "writes tests/golden/manifests"]
fn write_the_manifests() {
    fs::create_dir_all(golden("")).unwrap();
    for (name, options) in goldens() {
        fs::write(golden(name), printed(&options, None).unwrap()).unwrap();
    }
}

#[test]
fn configuration_fills_in_what_is_not_given() {
    let config = Config::parse(
        Path::new("config.toml"),
        r#"
        join = { directory = { path = "/bundle" } }
        workload.container = { name = "productcatalogservice", image = "x:1", ports = ["3550:3550"] }
        health.probe = { http = { port = 8080, path = "/healthz" }, period = "1500ms" }
        "#,
    )
    .unwrap();
    let text = printed("-n onlineboutique --workload-group productcatalog", Some(&config)).unwrap();
    for part in [
        "app: productcatalogservice",
        "name: tcp-3550",
        "path: /healthz",
        "periodSeconds: 2",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("Role"), "rights for nobody\n{text}");
}

#[test]
fn cluster_that_is_joined_says_the_names() {
    let join = |more: &str| {
        let text = format!(
            r#"join.kubernetes = {{ kubeconfig = "/k", namespace = "onlineboutique", workload_group = "productcatalog",
                revision = "canary", istio_namespace = "mesh", ingress_service = "vms.ingress"{more} }}"#
        );
        Config::parse(Path::new("config.toml"), &text).unwrap()
    };
    let rest = "--port http:80:8080 --port grpc-admin:9090 --label version=v1 --network vms --user jane --group vms \
                --joining-service-account onlineboutique/joiner --service productcatalogservice";
    assert_eq!(
        printed(rest, Some(&join(""))).unwrap(),
        fs::read_to_string(golden("revision.yaml")).unwrap()
    );
    let gke = Config::parse(
        Path::new("config.toml"),
        r#"join.gke = { project = "p", location = "l", cluster = "c", namespace = "onlineboutique",
            workload_group = "productcatalog", revision = "canary", istio_namespace = "mesh",
            ingress_service = "vms.ingress" }"#,
    );
    assert_eq!(
        printed(rest, Some(&gke.unwrap())).unwrap(),
        printed(rest, Some(&join(""))).unwrap()
    );
    let told = printed(rest, Some(&join(", ingress = \"10.0.0.1\""))).unwrap();
    assert!(!told.contains("namespace: ingress"), "{told}");
}

#[test]
fn argument_that_is_missing_or_makes_no_sense_is_a_usage_error() {
    for options in [
        "--workload-group a --port grpc:1",
        "-n a --port grpc:1",
        "-n a --workload-group b",
        "-n A --workload-group b --port grpc:1",
        "-n a --workload-group b --port grpc:1 --other-cluster",
        "-n a --workload-group b --port grpc:1 --label app=c",
        "-n a --workload-group b --port grpc:1 --google-service-account jane@example.com",
        "-n a --workload-group b --port grpc:1 --ingress-service c --no-ingress-service",
        "-n a --workload-group b --port grpc:1 --gateway 10.0.0.1",
        "-n a --workload-group b --port grpc:1 --other-cluster --gateway 10.0.0.1 --address 10.0.0.2",
        "-n a --workload-group b --port grpc:1 --other-cluster --gateway 10.0.0.1 --remote-secret",
        "-n a --workload-group b --port grpc:1 --other-cluster --remote-secret --strict",
        "-n a --workload-group b --port grpc:1 --expose kiali",
        "-n a --workload-group b --port grpc:1 --allow checkout",
        "-n a --workload-group b --port grpc:1 --egress cart",
    ] {
        let error = printed(options, None).unwrap_err();
        assert!(error.is::<clap::Error>(), "{options}: {error:#}");
    }
}

#[test]
fn object_that_the_cluster_would_refuse_is_refused() {
    assert_eq!(
        problems(&format!(
            "{GROUP} --port grpc:3550 --label example.com/team=shop --network vms"
        )),
        ""
    );
    for (options, words) in [
        (
            "--service 1catalog --port grpc:1",
            "--service: 1catalog begins with a digit",
        ),
        ("--port grpc:1 --port grpc:2", "--port: grpc:2 has the name"),
        (
            "--port grpc:1 --port http:1",
            "--port: http:1 has the name or the number",
        ),
        ("--port udp-dns:53", "--port: udp-dns: UDP doesn't go through Envoy"),
        ("--port grpc:80:15006", "--port: grpc: port 15006 is the mesh's own"),
        ("--port grpc:1 --label team=a/b", "--label: team=a/b is no label"),
        ("--port grpc:1 --label=-team=a", "--label: -team=a is no label"),
        ("--port grpc:1 --label Team/x=_", "--label: Team/x=_ is no label"),
        (
            "--port tcp-git:2222:22",
            "--port: tcp-git: port 22 of a VM is left alone, for sshd is there",
        ),
        ("--port tcp-ssh:22", "--port: tcp-ssh: port 22 of a VM is left alone"),
        ("--port grpc:1 --network VMs", "--network: \"VMs\""),
        (
            "--port grpc:1 --address 10.0.0.1 --address 10.0.0.1",
            "--address: 10.0.0.1 is there twice",
        ),
        (
            "--port grpc:1 --address 127.0.0.1",
            "--address: nobody else reaches a VM at 127.0.0.1",
        ),
        (
            "--port grpc:1 --expose istiod --expose istiod-load-balancer",
            "not by both",
        ),
        (
            "--port grpc:1 --expose istiod-load-balancer --ingress-service vms.ingress",
            "a Service in ingress selects no pod of istiod",
        ),
    ] {
        let problems = problems(&format!("-n a --workload-group b {options}"));
        assert!(problems.contains(words), "{options}: {problems}");
    }
}

#[test]
fn network_of_two_words_is_refused() {
    let mut given = arguments("-n a --workload-group b --port grpc:1").unwrap();
    given.network = Some("net one".to_owned());
    let problems = manifests::problems(&wanted(&given, None).unwrap());
    assert!(
        problems[0].starts_with("--network: \"net one\" can't stand in the name"),
        "{problems:?}"
    );
}

#[test]
fn load_balancer_of_istiod_is_the_one_that_vms_may_read() {
    let balanced = |more: &str| {
        printed(
            &format!("{GROUP} --port grpc:1 --user jane --expose istiod-load-balancer {more}"),
            None,
        )
    };
    let text = balanced("").unwrap();
    assert_eq!(text.matches("istiod-vms").count(), 2, "{text}");
    assert!(
        text.contains("networking.gke.io/load-balancer-type: Internal"),
        "{text}"
    );
    let text = balanced("--ingress-service vms --revision canary").unwrap();
    assert!(
        text.contains("istio.io/rev: canary") && !text.contains("istiod-vms"),
        "{text}"
    );
}

#[test]
fn setting_that_no_object_can_have_is_noted() {
    let of = |options: &str| {
        let notes = manifests::notes(&wanted(&arguments(options).unwrap(), None).unwrap());
        notes
            .iter()
            .map(|note| note.split(' ').take(3).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&format!("{GROUP} --port tcp:1 --user jane")), [""; 0]);
    assert_eq!(
        of(&format!("{GROUP} --port grpc:1")),
        ["the WorkloadGroup has", "nobody gets the"]
    );
    assert_eq!(
        of(&format!("{GROUP} --port foo:1 --group system:authenticated")),
        ["Istio guesses the", "--group system:authenticated: all"]
    );
    assert_eq!(
        of(&format!("{GROUP} --port grpc:1 --address ::1 --other-cluster")),
        [""; 0]
    );
}

#[test]
fn json_is_one_list() {
    let wanted = wanted(&arguments(&goldens()[0].1).unwrap(), None).unwrap();
    let list: serde_json::Value = serde_json::from_str(&text(Output::Json, &wanted).unwrap()).unwrap();
    assert_eq!(
        (list["kind"].as_str(), list["items"].as_array().unwrap().len()),
        (Some("List"), 8)
    );
}

#[test]
fn option_that_is_missing_is_named_on_a_line_and_no_configuration_is_blamed_where_none_is() {
    let missing = |config| {
        let wanted = wanted(&arguments("--namespace shop --port grpc:3550").unwrap(), config);
        wanted.err().unwrap().to_string()
    };
    let error = missing(None);
    assert!(
        error.ends_with("--workload-group is needed: there is no configuration\n"),
        "{error}"
    );
    let of_files = Config::parse(Path::new("/c"), "[join.directory]\npath = '/bundle'\n").unwrap();
    let error = missing(Some(&of_files));
    assert!(error.ends_with("the configuration names no cluster\n"), "{error}");
}
