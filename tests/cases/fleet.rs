//! Many VMs at once. Counts alone are judged: how long it takes is `bench --only fleet`'s to say.

use anyhow::{Result, ensure};
use e2e::fleet::Fleet;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::stand_in_only;

const SIZE: usize = 20;

pub(crate) fn trials() -> Vec<Trial> {
    let name = "a fleet joins, and comes back once each after istiod was killed";
    vec![stand_in_only(name, || {
        let settings = Settings {
            application: Application::None,
            ..Settings::default()
        };
        with_mesh(Kind::StandIn, settings, joins_and_comes_back)
    })]
}

fn joins_and_comes_back(mesh: &mut Mesh) -> Result<()> {
    let mut fleet = Fleet::new(&mesh.network, mesh.vm.bundle(), None, SIZE)?;
    for _ in 0..SIZE {
        fleet.start(&mesh.network)?;
    }
    all_are_there(mesh, &mut fleet, 1)?;
    mesh.kill_istiod()?;
    mesh.start_istiod()?;
    all_are_there(mesh, &mut fleet, 2)
}

/// Waits for all of them; each has one certificate, and has opened so many streams.
fn all_are_there(mesh: &Mesh, fleet: &mut Fleet, streams: usize) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    eventually("all to be there", PATIENCE, || {
        fleet.check_alive()?;
        let (there, opened) = (state.connected(), state.streams_opened());
        ensure!(
            there == SIZE && opened >= SIZE * streams,
            "{there} of {SIZE} are, by {opened} streams"
        );
        Ok(())
    })?;
    let (opened, certificates) = (state.streams_opened(), state.certificates().len());
    ensure!(opened == SIZE * streams, "{opened} streams of {SIZE} VMs");
    ensure!(certificates == SIZE, "{certificates} certificates for {SIZE} VMs");
    ensure!(state.refused().is_empty(), "{:?}", state.refused());
    Ok(())
}
