//! The application's container, and what it is called by.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::istiod::{Fault, Service};
use e2e::mesh::Mesh;
use e2e::network::Host;
use e2e::vm::Agent;

use super::vm::edit_bundle;
use super::{Cause, begin_anew, command, shell};

const CAUSES: &[Cause] = &[
    Cause {
        codes: &[
            "envoy-unconfigured",
            "rules-waiting",
            "container-waiting",
            "probe-pending",
        ],
        trouble: |mesh, agent| {
            let istiod = mesh.control_plane.stand_in()?;
            istiod.set_fault(Service::Ads, Some(Fault::Hang));
            begin_anew(mesh, agent)
        },
        says: "wait for istiod's first push",
        act: |mesh, _, _| {
            let istiod = mesh.control_plane.stand_in()?;
            istiod.set_fault(Service::Ads, None);
            istiod.set_istio_filters(false);
            Ok(())
        },
    },
    Cause {
        codes: &["container-failed"],
        trouble: |mesh, agent| {
            configure(mesh, ":latest", ":lost")?;
            agent.stop()?;
            *agent = mesh.vm.start_agent(&mesh.network)?;
            Ok(())
        },
        says: "IVA802",
        act: |mesh, _, _| {
            configure(mesh, ":lost", ":latest")?;
            let output = mesh.vm.agent(&mesh.network, &["reload"])?;
            ensure!(output.status.success(), "{output:?}");
            Ok(())
        },
    },
    Cause {
        codes: &["container-unwell"],
        trouble: |mesh, _| docker(mesh, "docker pause productcatalogservice"),
        says: "docker unpause",
        act: |mesh, _, told| docker(mesh, command(told, "docker unpause")?),
    },
    Cause {
        codes: &["ports-disagree"],
        trouble: |mesh, _| edit_bundle(mesh, "'3550'", "'3550,8080'"),
        says: "take it out of the WorkloadGroup",
        act: |mesh, _, _| edit_bundle(mesh, "'3550,8080'", "'3550'"),
    },
    Cause {
        codes: &["dns-port"],
        trouble: |mesh, agent| {
            agent.stop()?;
            shell(mesh, HOLD)?;
            *agent = mesh.vm.start_agent(&mesh.network)?;
            Ok(())
        },
        says: "ss -lntup sport = :15053",
        act: |mesh, agent, told| {
            end_who_has_it(mesh, command(told, "ss -lntup")?)?;
            command(told, "systemctl restart istio-vm-agent")?;
            restart(mesh, agent)
        },
    },
];

/// A name server of somebody's for his containers.
const HOLD: &str = r#"perl -MIO::Socket::INET -e '
    my $held = IO::Socket::INET->new(Proto => "udp", LocalAddr => "172.17.0.1:15053") or die $!;
    sleep 600' >/dev/null 2>&1 &
    until ss -Hlnu sport = :15053 | grep -q .; do sleep 0.1; done"#;

pub(super) fn take_away(mesh: &mut Mesh) -> Result<()> {
    super::take_away(mesh, CAUSES)
}

fn configure(mesh: &Mesh, from: &str, to: &str) -> Result<()> {
    let text = fs::read_to_string(mesh.vm.config())?;
    ensure!(text.contains(from), "no {from}: {text}");
    Ok(fs::write(mesh.vm.config(), text.replace(from, to))?)
}

/// Runs a line of Docker's command.
fn docker(mesh: &Mesh, line: &str) -> Result<()> {
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    mesh.vm.docker()?.cli(&words).map(drop)
}

/// Runs the line that tells who has the port, and ends the one that is not the agent.
fn end_who_has_it(mesh: &Mesh, line: &str) -> Result<()> {
    let told = mesh.network.run(Host::Vm, "sh", &["-c", line])?;
    let other = told
        .lines()
        .find(|line| line.contains("pid=") && !line.contains("istio-vm-agent"));
    let pid = other.and_then(|line| line.split("pid=").nth(1)?.split(',').next());
    let pid = pid.with_context(|| format!("{line} tells of nobody: {told}"))?;
    shell(mesh, &format!("kill {pid}"))
}

fn restart(mesh: &Mesh, agent: &mut Agent) -> Result<()> {
    agent.stop()?;
    *agent = mesh.vm.start_agent(&mesh.network)?;
    Ok(())
}
