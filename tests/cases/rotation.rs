//! The mesh gets another root of trust while the VM serves.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use e2e::mesh::{ControlPlane, Kind, Mesh, with_mesh};
use e2e::vm::{Agent, Settings};
use libtest_mimic::Trial;

use crate::stand_in_only;

pub(crate) fn trials() -> Vec<Trial> {
    vec![stand_in_only(
        "the roots are rotated at 200 calls a second: none fails",
        || with_mesh(Kind::StandIn, Settings::default(), rotated),
    )]
}

/// A new root is trusted beside the old one, then signs, then is the only one.
fn rotated(mesh: &mut Mesh) -> Result<()> {
    let ControlPlane::StandIn { istiod, .. } = &mesh.control_plane else {
        bail!("not the stand-in")
    };
    let state = std::sync::Arc::clone(istiod.state());
    // So that a certificate of the root that signs is there soon.
    state.set_certificate_lifetime(Duration::from_secs(10));
    let agent = mesh.join()?;
    let calling = mesh.start_calls(200)?;
    state.pki().add_root();
    spread(mesh)?;
    wait_for_roots(&agent, 1)?;
    renewed(mesh)?;
    state.pki().use_newest_root();
    spread(mesh)?;
    renewed(mesh)?;
    state.pki().drop_old_roots();
    spread(mesh)?;
    wait_for_roots(&agent, 2)?;
    renewed(mesh)?;
    mesh.expect_calls()?;
    calling.stop()?.expect_all_answered()?;
    ensure!(
        !agent.output().contains("failed to get a certificate"),
        "a certificate was refused"
    );
    Ok(())
}

/// Gives all what the PKI has now.
fn spread(mesh: &mut Mesh) -> Result<()> {
    mesh.start_istiod()?;
    mesh.write_bundle()?;
    match &mesh.control_plane {
        ControlPlane::StandIn { pod, istiod } => pod.renew(istiod.state()),
        ControlPlane::Real { .. } => Ok(()),
    }
}

/// Until the agent has taken up other roots so many times.
fn wait_for_roots(agent: &Agent, times: usize) -> Result<()> {
    e2e::eventually("other roots", e2e::PATIENCE, || {
        let taken = agent.output().matches("changed=\"root certificates\"").count();
        ensure!(taken == times, "{taken} of {times}");
        Ok(())
    })
}

/// Until the VM has a certificate that was signed from now on.
fn renewed(mesh: &Mesh) -> Result<()> {
    let before = serial(mesh)?;
    e2e::eventually("another certificate", e2e::PATIENCE, || {
        ensure!(serial(mesh)? != before, "it is the same");
        Ok(())
    })?;
    mesh.wait_until_healthy(true)
}

fn serial(mesh: &Mesh) -> Result<String> {
    let (status, _) = mesh.vm.status(&mesh.network)?;
    Ok(status["identity"]["serial"].to_string())
}
