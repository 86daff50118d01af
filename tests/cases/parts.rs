//! The harness's own parts, without the agent: a case that fails for their sake fails here first.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::calls::Load;
use e2e::docker::Docker;
use e2e::istiod::{Istiod, PeerAuthentication};
use e2e::network::{Host, Network};
use e2e::pod::Pod;
use e2e::real::{PilotAgent, Real, RealPod};
use e2e::{PATIENCE, bundle, eventually, programs};
use libtest_mimic::Trial;

use crate::{real_only, told};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("parts: Docker runs the image of the registry", || told(docker())),
        Trial::test("parts: a pod turns callers without a certificate away", || told(pod())),
        real_only("parts: the cluster comes up, and its pod serves", cluster),
        real_only("parts: Istio's own agent joins the stand-in's mesh", pilot_agent),
    ]
}

fn docker() -> Result<()> {
    let network = Network::new()?;
    let docker = Docker::start(&network, "{}")?;
    docker.cli(&[
        "run",
        "--detach",
        "--name",
        "catalog",
        "--publish",
        "3550:3550",
        &docker.image(),
    ])?;
    let calls = Load::on(Network::address(Host::Vm, 3550)).at_rate(20, Duration::from_secs(1));
    eventually("an answer from the container", PATIENCE, || {
        calls.run(&network, Host::Outside)?.expect_all_answered()
    })?;
    ensure!(docker.pid_of("catalog")? > 0, "the container has no pid");
    Ok(())
}

fn pod() -> Result<()> {
    let network = Network::new()?;
    let istiod = Istiod::start(&network)?;
    let _pod = Pod::start(&network, istiod.state())?;
    let calls = Load::on(Network::address(Host::Pod, e2e::pod::CART_PORT)).at_rate(10, Duration::from_secs(1));
    let answered = calls.run(&network, Host::Outside)?.answered().count();
    ensure!(answered == 0, "{answered} plaintext calls were answered");
    Ok(())
}

fn cluster() -> Result<()> {
    let network = Network::new()?;
    let cluster = Real::start(&network)?;
    let _pod = RealPod::start(&network, &cluster)?;
    let calls = Load::on(Network::address(Host::Pod, e2e::pod::CART_PORT)).at_rate(20, Duration::from_secs(1));
    calls.run(&network, Host::Outside)?.expect_all_answered()
}

/// The stand-in speaks as Istio's own agent expects of istiod: that joins, is called, and calls.
fn pilot_agent() -> Result<()> {
    let network = Network::new()?;
    let istiod = Istiod::start(&network)?;
    let _pod = Pod::start(&network, istiod.state())?;
    let _application = network.spawn(Host::Vm, "productcatalog", programs::productcatalog()?, &[])?;
    let folder = network.folder().join("bundle");
    bundle::write(&folder, istiod.state(), &bundle::claims(), true)?;
    let _agent = PilotAgent::start(&network, Host::Vm, &folder)?;
    eventually("health", PATIENCE, || {
        let entries = istiod.state().entries();
        let healthy = entries.values().next().and_then(|entry| entry.healthy());
        ensure!(healthy == Some(true), "{entries:?}");
        Ok(())
    })?;
    let inbound = Load {
        authority: Some("productcatalogservice.onlineboutique:3550".to_owned()),
        ..Load::on(Pod::catalog())
    };
    let calls = eventually("the pod to learn of the VM", PATIENCE, || {
        let calls = inbound.run(&network, Host::Pod)?;
        calls.expect_all_answered()?;
        Ok(calls)
    })?;
    calls.expect_caller(e2e::pod::SPIFFE_ID)?;
    let calls = Load::on("cartservice.onlineboutique:7070").run(&network, Host::Vm)?;
    calls.expect_all_answered()?;
    calls.expect_caller(bundle::SPIFFE_ID)?;

    let plaintext = Load {
        reconnect: true,
        deadline: Duration::from_secs(1),
        ..Load::on(Network::address(Host::Vm, 3550))
    };
    let plaintext = plaintext.at_rate(10, Duration::from_secs(1));
    plaintext.run(&network, Host::Outside)?.expect_all_answered()?;
    istiod.state().set_peer_authentication(PeerAuthentication::Strict);
    eventually("STRICT to be in force", PATIENCE, || {
        let calls = plaintext.run(&network, Host::Outside)?;
        ensure!(calls.answered().next().is_none(), "{calls}");
        Ok(())
    })?;
    inbound.run(&network, Host::Pod)?.expect_all_answered()
}
