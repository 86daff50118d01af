//! The real Kubernetes API server, with RBAC on.

mod google;
mod joining;
pub(crate) mod manifests;
mod world;

use anyhow::{Context, Result, ensure};
use e2e::kubernetes::{As, Cluster, GOOGLE_SERVICE_ACCOUNT, MESH};
use e2e::network::Network;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::told;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("the API server checks kinds, names and rights", checks),
        trial("the API server accepts all forms of manifests", manifests::are_accepted),
        trial(
            "manifests grant exactly what joining needs",
            manifests::grant_exactly_what_joining_needs,
        ),
        trial(
            "a VM with the printed rights joins, and follows the cluster",
            joining::with_the_printed_rights,
        ),
        trial(
            "a VM that has joined boots while the API server and istiod are dead",
            joining::without_the_api_server,
        ),
        trial("each right that is taken away is named", joining::without_a_right),
        trial(
            "each thing that is missing or wrong is named",
            joining::with_something_wrong,
        ),
        trial(
            "an instance template alone joins, with its configuration in one attribute",
            google::with_a_whole_configuration,
        ),
        trial(
            "an instance template alone joins, by three names",
            google::with_single_attributes,
        ),
    ]
}

fn trial(name: &str, case: fn() -> Result<()>) -> Trial {
    Trial::test(format!("Kubernetes: {name}"), move || told(case()))
}

fn checks() -> Result<()> {
    let network = Network::new()?;
    let mut cluster = Cluster::start(&network)?;
    cluster.apply(MESH)?;
    let service = cluster.get("/api/v1/namespaces/istio-system/services/istio-eastwestgateway")?;
    let address = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
    ensure!(address == "10.200.0.2", "the ingress is {address}");

    let misspelt = "{apiVersion: networking.istio.io/v1, kind: WorkloadGroup,
        metadata: {name: a, namespace: onlineboutique}, spec: {template: {serviceAcount: a}}}";
    let refusal = cluster.check(misspelt).err().context("a misspelt key is accepted")?;
    ensure!(format!("{refusal:#}").contains("serviceAcount"), "{refusal:#}");

    let path = "/api/v1/namespaces/istio-system/configmaps/istio";
    let as_the_vm = As::Token(cluster.token(GOOGLE_SERVICE_ACCOUNT)?);
    let expected = [
        (As::Anonymous, 403),
        (As::Token("wrong".to_owned()), 401),
        (as_the_vm, 403),
    ];
    for (user, code) in expected {
        let answer = cluster.ask(&user, "GET", path, "application/json", &Value::Null)?;
        ensure!(answer.code == code, "{user:?}: {} {}", answer.code, answer.body);
    }
    cluster.apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: vm, namespace: onlineboutique}}")?;
    let token = cluster.service_account_token("onlineboutique", "vm", Some("istio-ca"))?;
    let answer = cluster.ask(&As::Token(token), "GET", path, "application/json", &Value::Null)?;
    ensure!(
        answer.code == 401,
        "a token for istiod is good for the API server: {}",
        answer.code
    );

    cluster.kill()?;
    ensure!(cluster.get("/readyz").is_err(), "it outlived its death");
    cluster.restart(&network)?;
    cluster.get(path).map(drop)
}
