//! `join.kubernetes` against a real API server with RBAC: it works with the printed rights, and says what is missing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::istiod::{Authenticated, TokenClaims};
use e2e::kubernetes::GOOGLE_SERVICE_ACCOUNT;
use e2e::{bundle, eventually};
use serde_json::Value;

use super::manifests::printed;
use super::world::World;

/// Sooner than an agent that may not watch looks again.
const SOON: Duration = Duration::from_secs(30);

pub(super) fn with_the_printed_rights() -> Result<()> {
    let world = World::start()?;
    let mut agent = world.join()?;
    let first = world.istiod.state().certificates().into_iter().next();
    let first = first.context("no certificate was asked for")?;
    ensure!(first.by == Authenticated::Token, "{first:?}");
    ensure!(first.caller.spiffe_id() == bundle::SPIFFE_ID, "{first:?}");

    world.expect_calls()?;

    let text = printed(&[
        "--google-service-account",
        GOOGLE_SERVICE_ACCOUNT,
        "--label",
        "version=v2",
    ])?;
    world.cluster.apply(&text)?;
    eventually("the change to be seen", SOON, || {
        let said = agent.output();
        ensure!(said.contains("the membership has changed"), "it has not said so");
        Ok(())
    })?;
    agent.stop()
}

pub(super) fn without_the_api_server() -> Result<()> {
    let mut world = World::start()?;
    let mut agent = world.join()?;
    world.expect_calls()?;
    world.vm.await_snapshot()?;
    world.istiod.kill();
    world.cluster.kill()?;
    world.vm.power_cycle(&world.network, &mut agent)?;
    let mut agent = world.vm.start_agent(&world.network)?;
    agent.wait_until_ready(&world.network)?;
    world.expect_calls()
}

/// Rule by rule; watching is not among them, for without it the agent looks from time to time.
pub(super) fn without_a_right() -> Result<()> {
    let world = World::start()?;
    let text = printed(&["--google-service-account", GOOGLE_SERVICE_ACCOUNT, "--output", "json"])?;
    let list: Value = serde_json::from_str(&text)?;
    let roles: Vec<&Value> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|it| it["kind"] == "Role")
        .collect();
    let rules = roles.iter().flat_map(|role| role["rules"].as_array()).map(Vec::len);
    ensure!(rules.sum::<usize>() == 5, "the cases don't fit the rules: {roles:#?}");
    for role in roles {
        for number in 0..role["rules"].as_array().map_or(0, Vec::len) {
            let mut lesser = role.clone();
            let rules = lesser["rules"].as_array_mut().context("no rules")?;
            let taken = rules.remove(number);
            world.cluster.apply(&lesser.to_string())?;
            let [namespace, resource, name] = [
                &role["metadata"]["namespace"],
                &taken["resources"][0],
                &taken["resourceNames"][0],
            ]
            .map(|value| value.as_str().unwrap_or_default());
            world.expect_said(&[
                "403",
                &format!("Role in namespace {namespace} "),
                &format!("resources: [{resource}], resourceNames: [{name}]"),
                "`istio-vm-agent manifests`",
            ])?;
            world.repair()?;
        }
    }
    Ok(())
}

pub(super) fn with_something_wrong() -> Result<()> {
    let mut world = World::start()?;

    world.give_token("not-a-token")?;
    world.expect_said(&["401", "doesn't accept"])?;
    let for_istiod = world
        .cluster
        .service_account_token("onlineboutique", "productcatalog", Some("istio-ca"))?;
    world.give_token(&for_istiod)?;
    world.expect_said(&["401", "it is for istiod"])?;
    let for_vault = world
        .cluster
        .service_account_token("onlineboutique", "productcatalog", Some("vault"))?;
    world.give_token(&for_vault)?;
    world.expect_said(&["401", "it is for audience \"vault\": is it of this cluster"])?;
    let expired = TokenClaims {
        aud: vec!["https://kubernetes.default.svc".to_owned()],
        exp: 1_700_000_000,
        ..bundle::claims()
    };
    world.give_token(&world.istiod.state().token(&expired)?)?;
    world.expect_said(&["401", "it expired at 2023-11-14T22:13:20Z: put a fresh one there"])?;
    world.give_token(&world.cluster.token("stranger")?)?;
    world.expect_said(&["403", "may not do that", "resources: [workloadgroups]"])?;
    world
        .cluster
        .apply("{apiVersion: v1, kind: ServiceAccount, metadata: {name: vm, namespace: istio-system}}")?;
    world.give_token(&world.cluster.service_account_token("istio-system", "vm", None)?)?;
    world.expect_said(&["403", "of namespace istio-system", "join.kubernetes.namespace"])?;
    world.repair()?;

    let absent = [
        (
            "{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, \
             metadata: {name: productcatalog, namespace: onlineboutique}}",
            "there is none of that name in namespace onlineboutique",
        ),
        (
            "{apiVersion: v1, kind: ServiceAccount, metadata: {name: productcatalog, namespace: onlineboutique}}",
            "service account productcatalog doesn't exist",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: istio-system}}",
            "there is no Istio of that revision in istio-system",
        ),
        (
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: istio-ca-root-cert, namespace: onlineboutique}}",
            "does it serve onlineboutique?",
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: istio-eastwestgateway, namespace: istio-system}}",
            "no gateway of that name leads to istiod",
        ),
    ];
    for (object, said) in absent {
        world.cluster.delete(object)?;
        world.expect_said(&["404", said])?;
        world.repair()?;
    }

    world.cluster.kill()?;
    world.expect_said(&["failed to join", "https://10.200.0.2:6443"])
}
