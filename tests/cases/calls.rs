//! Calls both ways, over mTLS, by name.

use std::time::Duration;

use anyhow::Result;
use e2e::bundle;
use e2e::mesh::{Mesh, with_mesh};
use e2e::network::Host;
use e2e::vm::{Application, Settings};
use libtest_mimic::Trial;

use crate::both;

pub(crate) fn trials() -> Vec<Trial> {
    let container = || Settings {
        application: Application::Container,
        ..Settings::default()
    };
    let backend = |backend| Settings {
        backend,
        ..Settings::default()
    };
    [
        both("200 calls both ways, the application in a container", move |kind| {
            with_mesh(kind, container(), both_ways)
        }),
        both(
            "200 calls both ways, the application as a process, by nftables",
            move |kind| with_mesh(kind, backend("nftables"), both_ways),
        ),
        both(
            "200 calls both ways, the application as a process, by iptables",
            move |kind| with_mesh(kind, backend("iptables"), both_ways),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn both_ways(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    let inbound = mesh.calls_to_the_vm();
    // The pod may learn of the VM a moment after istiod has.
    e2e::eventually("a first answer", Duration::from_secs(10), || {
        let first = inbound.clone().at_rate(1, Duration::from_secs(1));
        first.run(&mesh.network, Host::Pod)?.expect_all_answered()
    })?;
    let calls = inbound.run(&mesh.network, Host::Pod)?;
    calls.expect_all_answered()?;
    calls.expect_caller(e2e::pod::SPIFFE_ID)?;

    let calls = mesh.calls_to_the_pod().run(&mesh.network, Host::Vm)?;
    calls.expect_all_answered()?;
    calls.expect_caller(bundle::SPIFFE_ID)
}
