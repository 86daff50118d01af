//! The certificate, and what the CA asks for it.

use std::time::Duration;

use anyhow::Result;
use e2e::bundle;
use e2e::istiod::{Fault, Service, TokenClaims};
use e2e::mesh::Mesh;
use e2e::vm::Agent;

use super::{Cause, begin_anew};

/// Renewal begins at half of it.
const SHORT_LIFE: Duration = Duration::from_secs(20);

const CAUSES: &[Cause] = &[
    Cause {
        codes: &["clock"],
        trouble: |mesh, _| mesh.vm.set_clock(-2),
        says: "set the VM's clock",
        act: |mesh, _, _| mesh.vm.set_clock(0),
    },
    Cause {
        codes: &[
            "certificate-missing",
            "envoy-unconfigured",
            "rules-waiting",
            "istiod-pending",
        ],
        trouble: |mesh, agent| {
            let claims = TokenClaims::of_service_account("onlineboutique", "cartservice");
            bundle::write(&mesh.vm.bundle(), mesh.control_plane.stand_in()?, &claims, true)?;
            begin_anew(mesh, agent)
        },
        says: "a token of this group's service account",
        act: |mesh, _, _| mesh.write_bundle(),
    },
    Cause {
        codes: &["certificate-renewal"],
        trouble: |mesh, agent| {
            let istiod = mesh.control_plane.stand_in()?;
            istiod.set_certificate_lifetime(SHORT_LIFE);
            begin_anew(mesh, agent)?;
            agent.wait_until_ready(&mesh.network)?;
            refuse(mesh)
        },
        says: "told to refuse",
        act: mend,
    },
    Cause {
        codes: &["certificate-expired"],
        trouble: |mesh, _| refuse(mesh),
        says: "told to refuse",
        act: mend,
    },
];

pub(super) fn take_away(mesh: &mut Mesh) -> Result<()> {
    mesh.vm.set_clock(0)?;
    super::take_away(mesh, CAUSES)
}

fn refuse(mesh: &Mesh) -> Result<()> {
    mesh.control_plane
        .stand_in()?
        .set_fault(Service::Ca, Some(Fault::Refuse));
    Ok(())
}

/// Follows `check`, which has the CA's own words.
fn mend(mesh: &mut Mesh, _: &mut Agent, _: &str) -> Result<()> {
    mesh.control_plane.stand_in()?.set_fault(Service::Ca, None);
    Ok(())
}
