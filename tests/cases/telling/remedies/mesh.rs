//! istiod, and what it sends.

use anyhow::Result;
use e2e::mesh::Mesh;

use super::{Cause, begin_anew};

const CAUSES: &[Cause] = &[
    Cause {
        codes: &["istiod-unreachable"],
        trouble: |mesh, _| mesh.kill_istiod(),
        says: "istiod.istio-system.svc:15012",
        act: |mesh, _, _| mesh.start_istiod(),
    },
    Cause {
        codes: &["envoy-extensions"],
        trouble: |mesh, _| push(mesh, true),
        says: "switch those filters off",
        act: |mesh, _, _| push(mesh, false),
    },
    Cause {
        codes: &["names-missing"],
        trouble: |mesh, agent| {
            mesh.control_plane.stand_in()?.withhold_names(true);
            begin_anew(mesh, agent)
        },
        says: "wait for istiod's first push",
        act: |mesh, _, _| {
            mesh.control_plane.stand_in()?.withhold_names(false);
            push(mesh, false)
        },
    },
];

pub(super) fn take_away(mesh: &mut Mesh) -> Result<()> {
    super::take_away(mesh, CAUSES)
}

/// Has istiod send all that it has, with a filter that this Envoy lacks or without one.
fn push(mesh: &Mesh, with_filter: bool) -> Result<()> {
    mesh.control_plane.stand_in()?.set_istio_filters(with_filter);
    Ok(())
}
