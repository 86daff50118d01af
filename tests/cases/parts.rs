//! The harness's own parts, without the agent: a case that fails for their sake fails here first.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::calls::Load;
use e2e::docker::Docker;
use e2e::eventually;
use e2e::istiod::Istiod;
use e2e::network::{Host, Network};
use e2e::pod::Pod;
use libtest_mimic::Trial;

use crate::{real_only, told};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("parts: Docker runs the image of the registry", || told(docker())),
        Trial::test("parts: a pod turns callers without a certificate away", || told(pod())),
        real_only("parts: the cluster comes up, and its pod serves", cluster),
    ]
}

fn docker() -> Result<()> {
    let network = Network::new()?;
    let docker = Docker::start(&network)?;
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
    eventually("an answer from the container", Duration::from_secs(10), || {
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
    let cluster = e2e::real::Real::start(&network)?;
    let _pod = e2e::real::RealPod::start(&network, &cluster)?;
    let calls = Load::on(Network::address(Host::Pod, e2e::pod::CART_PORT)).at_rate(20, Duration::from_secs(1));
    calls.run(&network, Host::Outside)?.expect_all_answered()
}
