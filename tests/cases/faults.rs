//! What istiod does wrong, the VM outlives.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::eventually;
use e2e::istiod::{Fault, Service};
use e2e::mesh::{ControlPlane, Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::vm::Settings;
use libtest_mimic::Trial;

use crate::stand_in_only;

pub(crate) fn trials() -> Vec<Trial> {
    [Fault::Refuse, Fault::Hang, Fault::Garbage]
        .into_iter()
        .map(|fault| {
            stand_in_only(
                &format!("calls go on while discovery's fault is {fault:?}, and it comes back"),
                move || with_mesh(Kind::StandIn, Settings::default(), |mesh| outlived(mesh, fault)),
            )
        })
        .collect()
}

fn outlived(mesh: &Mesh, fault: Fault) -> Result<()> {
    let _agent = mesh.join()?;
    let ControlPlane::StandIn { istiod, .. } = &mesh.control_plane else {
        anyhow::bail!("only the stand-in fails on command");
    };
    let state = istiod.state();
    let opened = state.streams_opened();
    let calling = mesh
        .calls_to_the_vm()
        .at_rate(50, Duration::from_secs(8))
        .start(&mesh.network, Host::Pod)?;
    state.set_fault(Service::Ads, Some(fault));
    state.drop_streams();
    if fault != Fault::Refuse {
        eventually("another stream", Duration::from_secs(10), || {
            ensure!(state.streams_opened() > opened, "none yet");
            Ok(())
        })?;
    }
    state.set_fault(Service::Ads, None);
    state.drop_streams();
    mesh.wait_until_healthy(true)?;
    calling.finish()?.expect_all_answered()
}
