//! `manifests`: what it prints is taken by a real API server, and grants what joining asks for and nothing else.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::kubernetes::{As, Cluster, GOOGLE_SERVICE_ACCOUNT, MESH};
use e2e::network::Network;
use e2e::process::output_of;
use e2e::programs;
use serde_json::{Value, json};

/// Options that an operator gives for the VMs of the cases.
const GROUP: [&str; 8] = [
    "--namespace",
    "onlineboutique",
    "--workload-group",
    "productcatalog",
    "--service",
    "productcatalogservice",
    "--port",
    "grpc:3550",
];

/// Output of the program with these options, after those of the group.
pub(crate) fn printed(options: &[&str]) -> Result<String> {
    let mut command = Command::new(programs::agent()?);
    command.arg("manifests").args(GROUP).args(options);
    output_of(command)
}

/// Every form of it is valid, by Kubernetes' and Istio's own schemas.
pub(crate) fn are_accepted() -> Result<()> {
    let network = Network::new()?;
    let cluster = Cluster::start(&network)?;
    cluster.apply(MESH)?;
    let vm = ["--google-service-account", GOOGLE_SERVICE_ACCOUNT];
    let forms: [&[&str]; 9] = [
        &["--with-namespace"],
        &[
            "--revision",
            "canary",
            "--network",
            "vms",
            "--label",
            "version=v1",
            "--user",
            "jane",
            "--group",
            "vms",
        ],
        &["--joining-service-account", "onlineboutique/joiner", "--output", "json"],
        &[
            "--address",
            "10.200.0.3",
            "--address",
            "fd00:200::3",
            "--no-ingress-service",
        ],
        &["--address", "10.200.0.3", "--other-cluster"],
        &["--gateway", "34.5.6.7", "--other-cluster"],
        &["--remote-secret", "--other-cluster"],
        &[
            "--expose",
            "istiod",
            "--expose",
            "services",
            "--strict",
            "--allow",
            "onlineboutique/checkout",
            "--egress",
            "./*",
            "--scrape",
            "10.200.0.3",
        ],
        &["--expose", "istiod-load-balancer", "--revision", "canary"],
    ];
    for form in forms {
        let text = printed(&[form, &vm].concat())?;
        cluster.check(&text).with_context(|| format!("{form:?}"))?;
    }
    Ok(())
}

/// A user with the printed Roles may do what `join.kubernetes` does; all else is as for a stranger.
pub(crate) fn grant_exactly_what_joining_needs() -> Result<()> {
    let network = Network::new()?;
    let cluster = Cluster::start(&network)?;
    cluster.apply(MESH)?;
    let vm = As::Token(cluster.token(GOOGLE_SERVICE_ACCOUNT)?);
    let stranger = As::Token(cluster.token("stranger")?);
    cluster.apply(&printed(&["--google-service-account", GOOGLE_SERVICE_ACCOUNT])?)?;

    for (namespace, expected) in [
        (
            "onlineboutique",
            [
                "create serviceaccounts/token productcatalog",
                "get,watch configmaps istio-ca-root-cert",
                "get,watch workloadgroups.networking.istio.io productcatalog",
            ]
            .as_slice(),
        ),
        (
            "istio-system",
            &["get,watch configmaps istio", "get,watch services istio-eastwestgateway"],
        ),
        ("default", &[]),
    ] {
        let everybody = rules(&cluster, &stranger, namespace)?;
        let own = rules(&cluster, &vm, namespace)?;
        let granted: Vec<&String> = own.difference(&everybody).collect();
        ensure!(granted == expected, "in {namespace}: {granted:#?}");
    }
    Ok(())
}

/// As the API server tells the user's own rights, one line a rule.
fn rules(cluster: &Cluster, user: &As, namespace: &str) -> Result<BTreeSet<String>> {
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = cluster
        .ask(user, "POST", path, "application/json", &review)?
        .expect_success()?;
    let status = &answer["status"];
    let rules = ["resourceRules", "nonResourceRules"].map(|kind| status[kind].as_array().cloned().unwrap_or_default());
    Ok(rules.concat().iter().map(line).collect())
}

fn line(rule: &Value) -> String {
    let list = |key: &str| {
        let items = rule[key].as_array().into_iter().flatten();
        items.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
    };
    let group = match list("apiGroups") {
        group if group.is_empty() => group,
        group => format!(".{group}"),
    };
    format!(
        "{} {}{group} {}{}",
        list("verbs"),
        list("resources"),
        list("resourceNames"),
        list("nonResourceURLs")
    )
}
