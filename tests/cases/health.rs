//! The application's health reaches istiod, and reaches it again.

use anyhow::Result;
use e2e::mesh::{Mesh, with_mesh};
use e2e::vm::Settings;
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::both;

pub(crate) fn trials() -> Vec<Trial> {
    both(
        "health goes True, False, True, also across a restart of istiod",
        |kind| with_mesh(kind, Settings::default(), follows),
    )
    .into()
}

fn follows(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    mesh.vm.signal_application(Signal::USR1)?;
    mesh.wait_until_healthy(false)?;
    mesh.vm.signal_application(Signal::USR2)?;
    mesh.wait_until_healthy(true)?;

    mesh.kill_istiod()?;
    mesh.vm.signal_application(Signal::USR1)?;
    mesh.start_istiod()?;
    mesh.wait_until_healthy(false)?;
    mesh.vm.signal_application(Signal::USR2)?;
    mesh.wait_until_healthy(true)
}
