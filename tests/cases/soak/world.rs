//! A mesh whose VM anything may happen to: it has a cloud, clocks, a disk and a memory of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use e2e::clock::DAY;
use e2e::google::Google;
use e2e::istiod::State;
use e2e::mesh::{ControlPlane, Mesh};
use e2e::network::{EtcView, Host};
use e2e::vm::Agent;
use e2e::{PATIENCE, bundle, eventually};

use crate::host_events::ip;

/// The kernel's account of memory that nobody waits for.
pub(super) const NO_PRESSURE: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n\
                                      full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";

/// The mesh, the agent of now, and what only the case knows.
pub(super) struct World<'a> {
    pub(super) mesh: &'a mut Mesh,
    pub(super) agent: Agent,
    pub(super) google: Google,
    /// Where the VM is.
    pub(super) address: Ipv4Addr,
    /// In the place of /proc/pressure/memory.
    pub(super) pressure: PathBuf,
    /// In days from now: by then every certificate that the VM has got is over.
    pub(super) horizon: i64,
    pub(super) machines: u64,
}

impl<'a> World<'a> {
    pub(super) fn new(mesh: &'a mut Mesh) -> Result<Self> {
        let google = Google::start(&mesh.network, EtcView::Plain, "token")?;
        mesh.vm.put_on_google();
        mesh.vm.set_clock(0)?;
        mesh.vm.give_the_state_a_disk()?;
        let pressure = mesh.vm.own_memory_pressure();
        fs::write(&pressure, NO_PRESSURE)?;
        write_machine_id(mesh, 0)?;
        write_bundle(mesh)?;
        Ok(Self {
            agent: mesh.join()?,
            mesh,
            google,
            address: Host::Vm.ipv4(),
            pressure,
            horizon: 2,
            machines: 0,
        })
    }

    /// Until the agent is ready, and istiod has the VM healthy where it is.
    pub(super) fn wait_until_well(&mut self) -> Result<()> {
        self.agent.wait_until_ready(&self.mesh.network)?;
        eventually(format!("the VM to be healthy at {}", self.address), PATIENCE, || {
            ensure!(self.mesh.healthy_at(self.address)? == Some(true), "not yet");
            Ok(())
        })
    }

    pub(super) fn state(&self) -> Result<&State> {
        self.mesh.control_plane.stand_in()
    }

    /// Another agent in the place of the one that has ended.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        self.agent = self.mesh.vm.start_agent(&self.mesh.network)?;
        self.wait_until_well()
    }

    /// istiod's clock, by which it is started again.
    pub(super) fn set_clock_of_istiod(&mut self, days: i64) -> Result<()> {
        self.state()?.set_clock(days);
        self.restart_istiod()
    }

    pub(super) fn restart_istiod(&mut self) -> Result<()> {
        self.mesh.kill_istiod()?;
        self.mesh.start_istiod()
    }

    pub(super) fn write_bundle(&self) -> Result<()> {
        write_bundle(self.mesh)
    }

    /// Gives the pod another certificate, and the roots of now.
    pub(super) fn renew_pod(&self) -> Result<()> {
        match &self.mesh.control_plane {
            ControlPlane::StandIn { pod, istiod } => pod.renew(istiod.state()),
            ControlPlane::Real { .. } => Ok(()),
        }
    }

    pub(super) fn change_machine(&mut self) -> Result<()> {
        self.machines += 1;
        write_machine_id(self.mesh, self.machines)
    }

    /// `ip` on the VM.
    pub(super) fn ip(&self, line: &str) -> Result<()> {
        ip(self.mesh, &line.split(' ').collect::<Vec<_>>())
    }

    /// The routes, which go with the last address and with the link.
    pub(super) fn route(&self) -> Result<()> {
        self.ip("route replace 169.254.169.254 dev eth0")?;
        self.ip("-4 route replace default via 10.200.0.1")
    }
}

/// With a token for as long as clocks may be set ahead.
fn write_bundle(mesh: &Mesh) -> Result<()> {
    let mut claims = bundle::claims();
    claims.exp += 3650 * DAY;
    bundle::write(&mesh.vm.bundle(), mesh.control_plane.stand_in()?, &claims, true)
}

fn write_machine_id(mesh: &Mesh, number: u64) -> Result<()> {
    let file = mesh.network.etc(Host::Vm).join("machine-id");
    Ok(fs::write(file, format!("{:032x}\n", u128::from(number) + 1))?)
}
