//! Two control planes: the first fails, the second takes over, and the first gets its VM back once it is well.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::calls::Calling;
use e2e::istiod::{Istiod, NAME, PORT, PeerAuthentication};
use e2e::mesh::{ControlPlane, Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::vm::Settings;
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::stand_in_only;

/// Where the second one is, on the same host.
const SECOND: u16 = 15013;

pub(crate) fn trials() -> Vec<Trial> {
    let case = |name: &str, case: fn(&mut Mesh) -> Result<()>| {
        stand_in_only(name, move || {
            let more = format!(
                "[control_plane]\naddresses = [\"{NAME}:{PORT}\", \"{NAME}:{SECOND}\"]\nreturn_after = \"2s\"\n"
            );
            let settings = Settings {
                more,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, case)
        })
    };
    vec![
        case(
            "of two istiods the first is killed and comes back: no call fails",
            killed,
        ),
        case(
            "of two istiods the first can't be reached any more: no call fails",
            unreachable,
        ),
        case("of two istiods the first is away from the start: the VM joins", away),
    ]
}

fn killed(mesh: &mut Mesh) -> Result<()> {
    mesh.control_plane
        .stand_in()?
        .set_certificate_lifetime(Duration::from_secs(30));
    let _second = second(mesh)?;
    let _agent = mesh.join()?;
    until_served_by(mesh, PORT)?;
    let calling = mesh.start_calls(200)?;
    until_opened("killed: a stream to the second", mesh, Mesh::kill_istiod)?;
    until_served_by(mesh, SECOND)?;
    mesh.wait_until_healthy(true)?;
    configuration_flows(mesh)?;
    let issued = mesh.control_plane.stand_in()?.certificates().len();
    eventually("the second to renew the certificate", PATIENCE, || {
        ensure!(mesh.control_plane.stand_in()?.certificates().len() > issued, "not yet");
        Ok(())
    })?;

    until_opened("started again: a stream to the first", mesh, Mesh::start_istiod)?;
    until_served_by(mesh, PORT)?;
    mesh.wait_until_healthy(true)?;
    configuration_flows(mesh)?;
    end(mesh, calling)
}

fn unreachable(mesh: &mut Mesh) -> Result<()> {
    let _second = second(mesh)?;
    let _agent = mesh.join()?;
    until_served_by(mesh, PORT)?;
    let calling = mesh.start_calls(200)?;
    until_opened("unreachable: a stream to the second", mesh, |mesh| {
        swallow_packets(mesh)
    })?;
    until_served_by(mesh, SECOND)?;
    eventually("status to say why", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let reason = status["control_planes"]["reason"].as_str().unwrap_or_default();
        ensure!(reason.contains("is silent"), "{status}");
        Ok(())
    })?;
    configuration_flows(mesh)?;
    mesh.network
        .run(Host::ControlPlane, "nft", &["delete", "table", "inet", "hole"])?;
    until_served_by(mesh, PORT)?;
    configuration_flows(mesh)?;
    end(mesh, calling)
}

fn away(mesh: &mut Mesh) -> Result<()> {
    let _second = second(mesh)?;
    swallow_packets(mesh)?;
    let start = Instant::now();
    let _agent = mesh.join()?;
    let took = start.elapsed().as_secs_f64();
    crate::note(
        "failover",
        &format!("the first unreachable from the start: joined after {took:.2} s"),
    );
    until_served_by(mesh, SECOND)?;
    mesh.expect_calls().map(drop)
}

/// Prints the time from what `happens` to the next stream.
fn until_opened(what: &str, mesh: &mut Mesh, happens: impl FnOnce(&mut Mesh) -> Result<()>) -> Result<()> {
    let opened = mesh.control_plane.stand_in()?.streams_opened();
    let start = Instant::now();
    happens(mesh)?;
    eventually(what, PATIENCE, || {
        ensure!(mesh.control_plane.stand_in()?.streams_opened() > opened, "none yet");
        Ok(())
    })?;
    crate::note(
        "failover",
        &format!("{what} after {:.2} s", start.elapsed().as_secs_f64()),
    );
    Ok(())
}

fn second(mesh: &Mesh) -> Result<Istiod> {
    match &mesh.control_plane {
        ControlPlane::StandIn { istiod, .. } => istiod.beside(&mesh.network, SECOND),
        ControlPlane::Real { .. } => anyhow::bail!("only the stand-in has a second one"),
    }
}

/// Nothing that goes to the first one arrives, and nobody is told.
fn swallow_packets(mesh: &Mesh) -> Result<()> {
    let rules = format!(
        "table inet hole {{ chain input {{ type filter hook input priority 0; tcp dport {PORT} drop; }}; \
         chain output {{ type filter hook output priority 0; tcp sport {PORT} drop; }}; }}"
    );
    mesh.network.run(Host::ControlPlane, "nft", &[&rules]).map(drop)
}

fn until_served_by(mesh: &Mesh, port: u16) -> Result<()> {
    eventually(format!("the stream to be with port {port}"), PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let place = status["xds"]["connected_to"].as_str().context("there is no stream")?;
        ensure!(place.contains(&format!("{NAME}:{port} ")), "it is with {place}");
        ensure!(status["xds"]["envoy_connected"] == true, "Envoy's stream is not open");
        Ok(())
    })
}

/// Something new reaches Envoy, and Envoy takes it.
fn configuration_flows(mesh: &Mesh) -> Result<()> {
    let state = mesh.control_plane.stand_in()?;
    for mode in [PeerAuthentication::Strict, PeerAuthentication::Permissive] {
        let accepted = state.accepted("Listener");
        state.set_peer_authentication(mode);
        eventually("Envoy to accept a listener", PATIENCE, || {
            ensure!(state.accepted("Listener") > accepted, "none yet");
            Ok(())
        })?;
    }
    Ok(())
}

fn end(mesh: &Mesh, calling: Calling) -> Result<()> {
    let calls = calling.stop()?;
    calls.expect_all_answered()?;
    let refused = mesh.control_plane.stand_in()?.refused();
    ensure!(refused.is_empty(), "Envoy refused {refused:?}");
    crate::note("failover", &format!("{calls}, at 200 a second"));
    Ok(())
}
