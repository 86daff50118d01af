//! Acts of an operator and other programs on the VM.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::http;
use e2e::istiod::PeerAuthentication;
use e2e::mesh::Mesh;
use e2e::network::Host;
use e2e::{PATIENCE, eventually};
use rustix::process::Signal;

use super::{Cause, command, health, place, shell};

/// Envoy's drain is over before.
const LEAVES_WITHIN: Duration = Duration::from_secs(60);
/// Nobody has this port.
const SCRAPED: &str = "ISTIO_PROMETHEUS_ANNOTATIONS='{\"scrape\":\"true\",\"port\":\"9100\",\"path\":\"/metrics\"}'\n";

const CAUSES: &[Cause] = &[
    Cause {
        codes: &["join-source"],
        trouble: |mesh, _| Ok(fs::remove_file(mesh.vm.bundle().join("cluster.env"))?),
        says: "cluster.env",
        act: |mesh, _, _| mesh.write_bundle(),
    },
    Cause {
        codes: &["probe-failing"],
        trouble: |mesh, _| mesh.vm.signal_application(Signal::STOP),
        says: "look at the application",
        act: |mesh, _, _| mesh.vm.signal_application(Signal::CONT),
    },
    Cause {
        codes: &["hosts-file"],
        // By no agent's leave, which would put its block back at once.
        trouble: |mesh, agent| {
            agent.signal(Signal::STOP)?;
            shell(mesh, "echo 127.0.0.1 localhost >/etc/hosts && chattr +i /etc/hosts")?;
            agent.signal(Signal::CONT)
        },
        says: "chattr -i /etc/hosts",
        act: |mesh, _, _| shell(mesh, "chattr -i /etc/hosts"),
    },
    Cause {
        codes: &["rules-failed"],
        trouble: |mesh, _| {
            fs::write(refusing(mesh), "")?;
            edit_bundle(mesh, "'3550'", "'3550,3551'")
        },
        says: "IVA601",
        act: |mesh, _, _| Ok(fs::remove_file(refusing(mesh))?),
    },
    Cause {
        codes: &["snapshot"],
        trouble: |mesh, _| {
            shell(mesh, &format!("head -c 64M /dev/zero >{}/full || :", state(mesh)))?;
            mesh.set_peer_authentication(PeerAuthentication::Strict)
        },
        says: "No space left on device",
        act: |mesh, _, _| shell(mesh, &format!("rm {}/full", state(mesh))),
    },
    Cause {
        codes: &["metrics-missing"],
        trouble: |mesh, _| {
            let file = mesh.vm.bundle().join("cluster.env");
            fs::write(&file, fs::read_to_string(&file)? + SCRAPED)?;
            scrape_until(mesh, true)
        },
        says: "http://localhost:9100/metrics",
        act: |mesh, _, _| {
            mesh.write_bundle()?;
            scrape_until(mesh, false)
        },
    },
    Cause {
        codes: &["leaving", "envoy-draining"],
        trouble: |mesh, agent| {
            mesh.expect_calls()?;
            agent.signal(Signal::TERM)
        },
        says: "wait: the agent leaves the mesh",
        act: |mesh, agent, _| {
            let ended = agent.wait(LEAVES_WITHIN)?;
            ensure!(ended.success(), "it ended with {ended}");
            *agent = mesh.vm.start_agent(&mesh.network)?;
            Ok(())
        },
    },
    Cause {
        codes: &["agent-down"],
        trouble: |_, agent| agent.signal(Signal::STOP),
        says: "systemctl kill --signal=KILL istio-vm-agent",
        act: |mesh, agent, _| {
            agent.kill()?;
            *agent = mesh.vm.start_agent(&mesh.network)?;
            Ok(())
        },
    },
    Cause {
        codes: &["agent-down"],
        trouble: |_, agent| agent.kill(),
        says: "IVA101",
        act: |mesh, agent, told| {
            command(told, "systemctl start istio-vm-agent")?;
            *agent = mesh.vm.start_agent(&mesh.network)?;
            Ok(())
        },
    },
];

pub(super) fn take_away(mesh: &mut Mesh) -> Result<()> {
    mesh.vm.give_the_state_a_disk()?;
    let words = "Error: Could not process rule: Operation not supported";
    let refusing = refusing(mesh);
    let script = format!("[ -e {refusing} ] && {{ echo '{words}' >&2; exit 1; }}\nexec $REAL \"$@\"");
    mesh.vm.replace_program("nft", &script)?;
    let taken = super::take_away(mesh, CAUSES);
    // Else nobody could take the case's folder away.
    shell(mesh, "chattr -i /etc/hosts")?;
    taken
}

/// The file by which the kernel refuses rules while it is there.
fn refusing(mesh: &Mesh) -> String {
    mesh.vm.config().with_file_name("refusing").display().to_string()
}

fn state(mesh: &Mesh) -> String {
    mesh.vm.state_folder().display().to_string()
}

pub(super) fn edit_bundle(mesh: &Mesh, from: &str, to: &str) -> Result<()> {
    let file = mesh.vm.bundle().join("cluster.env");
    let text = fs::read_to_string(&file)?;
    ensure!(text.contains(from), "no {from}: {text}");
    Ok(fs::write(file, text.replace(from, to))?)
}

/// Asks for the page of metrics, as Prometheus does, until it lacks something or nothing.
fn scrape_until(mesh: &Mesh, is_missing: bool) -> Result<()> {
    eventually(format!("metrics that lack something: {is_missing}"), PATIENCE, || {
        http::get(&mesh.network, Host::Vm, 15020, "/stats/prometheus")?;
        let health = health(mesh)?;
        let place = place(&health, "metrics-missing");
        ensure!(place.is_some() == is_missing, "{health}");
        Ok(())
    })
}
