//! A dockerd that is a manager of a swarm.

use anyhow::{Result, ensure};
use e2e::mesh::Mesh;
use e2e::network::Host;
use e2e::{PATIENCE, eventually};

use super::{check, finding};

/// The application's container is called there as anywhere; and what `check` says of the swarm and of live-restore, which
/// exclude each other, leads to a dockerd that has no fault.
pub(super) fn of_a_manager(mesh: &mut Mesh) -> Result<()> {
    let address = Host::Vm.ipv4().to_string();
    mesh.vm
        .docker()?
        .cli(&["swarm", "init", "--advertise-addr", &address])?;
    expect(mesh, 0, "warning", "`docker swarm leave --force`")?;
    let mut agent = mesh.join()?;
    mesh.expect_calls()?;

    // What the swarm is overlooked with: dockerd takes it up, and would not start again.
    mesh.vm.docker()?.reload(r#"{"live-restore": true}"#)?;
    expect(mesh, 1, "failed", "put \"live-restore\": false into")?;
    mesh.vm.docker()?.cli(&["swarm", "leave", "--force"])?;
    expect(mesh, 0, "ok", "answers at")?;
    mesh.expect_calls()?;
    agent.stop()
}

fn expect(mesh: &Mesh, exit: i32, wanted: &str, says: &str) -> Result<()> {
    eventually(format!("docker to be {wanted}"), PATIENCE, || {
        let (level, detail) = finding(&check(mesh, exit)?, "docker")?;
        ensure!(level == wanted && detail.contains(says), "docker is {level}: {detail}");
        Ok(())
    })
}
