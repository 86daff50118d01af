//! The agent says what is wrong: in `status`, in `plan`, and by its exit code.

mod remedies;

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::istiod::{Authenticated, TokenClaims};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::snapshot::Snapshot;
use e2e::vm::Settings;
use e2e::{PATIENCE, bundle, eventually};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::Value;

use crate::{real_only, stand_in_only};

/// Time in which `status` promises to answer, and the start of a process in a debug build on a busy machine.
const PROMPT: Duration = Duration::from_millis(200);
const SHORT_LIFE: Duration = Duration::from_secs(20);
/// sysexits.h EX_CONFIG.
const CONFIG: i32 = 78;

pub(crate) fn trials() -> Vec<Trial> {
    let case = |name, case: fn(&mut Mesh) -> Result<()>| {
        stand_in_only(name, move || with_mesh(Kind::StandIn, Settings::default(), case))
    };
    let mut trials = vec![
        case("a NACK shows in status, and goes when it is over", nack),
        case(
            "status answers in 200 ms while the agent is stopped, and when it is gone",
            prompt,
        ),
        case(
            "a firewall that shuts calls out is named in status, whose command lets them in",
            firewall,
        ),
        case("plan shows the changes and makes none", plan),
        case("bad input: exit 78, nothing touched", bad_input),
        stand_in_only(
            "a VM without an address is no fault of its configuration, and joins once it has one",
            || {
                let settings = Settings {
                    fixed_address: false,
                    ..Settings::default()
                };
                with_mesh(Kind::StandIn, settings, no_address)
            },
        ),
        case(
            "a token that istiod refuses is named with its flaw, and no traffic is taken",
            refused_tokens,
        ),
        case(
            "certificates that live 20 s are renewed under way: no call fails",
            short_lived,
        ),
        real_only(
            "real istiod: a life that it doesn't grant is told with identity.ttl",
            || {
                let settings = Settings {
                    more: "[identity]\nttl = \"100days\"\n".to_owned(),
                    ..Settings::default()
                };
                with_mesh(Kind::Real, settings, refused_life)
            },
        ),
    ];
    trials.extend(remedies::trials());
    trials
}

fn nack(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    mesh.control_plane.stand_in()?.set_istio_filters(true);
    eventually("the NACK in status", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let nacks = status["xds"]["nacks"].to_string();
        ensure!(
            nacks.contains("istio.metadata_exchange") && nacks.contains("Listener"),
            "{status}"
        );
        Ok(())
    })?;
    mesh.expect_calls()?;
    mesh.control_plane.stand_in()?.set_istio_filters(false);
    eventually("the NACK to be over", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(status["xds"]["nacks"].as_array().is_some_and(Vec::is_empty), "{status}");
        Ok(())
    })
}

/// A firewall that knows the application's port, as one that was there before the mesh.
const FIREWALL: &str = "table inet filter { chain input { type filter hook input priority 0; policy drop; \
                        iifname lo accept; ct state established,related accept; meta l4proto ipv6-icmp accept; \
                        tcp dport { 22, 3550 } accept; }; }";

fn firewall(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    mesh.expect_calls()?;
    shell(mesh, &format!("nft '{FIREWALL}'"))?;
    let told = eventually("the firewall in status", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(
            status["health"]["codes"].to_string().contains("firewall-closed"),
            "{status}"
        );
        ensure!(status["health"]["ready"] == true, "{status}");
        Ok(status["health"]["problems"].to_string())
    })?;
    let command = told.split('`').nth(1).context("no command")?.to_owned();
    ensure!(!command.contains("15021"), "more than calls need: {command}");
    shell(mesh, &command)?;
    mesh.expect_calls()?;
    eventually("the firewall to be out of status", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(
            !status["health"]["codes"].to_string().contains("firewall-closed"),
            "{status}"
        );
        Ok(())
    })
}

/// A root's shell on the VM.
fn shell(mesh: &Mesh, script: &str) -> Result<()> {
    let mut shell = mesh.network.command(Host::Vm, EtcView::Plain, "sh");
    let output = shell.args(["-ec", script]).output()?;
    ensure!(output.status.success(), "{script}: {output:?}");
    Ok(())
}

fn prompt(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    let status = prompt_status(mesh, "running")?;
    ensure!(status["health"]["ready"] == true, "{status}");

    agent.signal(Signal::STOP)?;
    let told = prompt_status(mesh, "not_answering");
    agent.signal(Signal::CONT)?;
    told?;

    agent.kill()?;
    let status = prompt_status(mesh, "not_answering")?;
    ensure!(status["envoy"]["pid"].is_u64(), "Envoy runs on: {status}");
    Ok(())
}

/// `status`, when it says so in time: of a few, for a busy machine may make any single one slow.
fn prompt_status(mesh: &Mesh, agent: &str) -> Result<Value> {
    eventually(format!("status of an agent that is {agent}"), PATIENCE, || {
        let (status, took) = mesh.vm.status(&mesh.network)?;
        ensure!(status["agent"]["state"] == agent, "{status}");
        ensure!(took < PROMPT, "it took {took:?}");
        Ok(status)
    })
}

fn plan(mesh: &mut Mesh) -> Result<()> {
    let before = snapshot(mesh)?;
    let text = planned(mesh, &["plan", "--detailed-exitcode"], Some(2))?;
    for told in [
        "Starts         Envoy, ",
        "Captures       calls to this VM on port 3550",
        "Writes ",
        "Removes        nothing",
        "Never touched  ",
        "ssh to this VM, port 22",
        "+10.200.0.2",
        "15006",
        "15001",
    ] {
        ensure!(text.contains(told), "plan doesn't tell {told:?}: {text}");
    }
    ensure!(!text.contains("static_resources"), "the bootstrap is there: {text}");
    let full = planned(mesh, &["plan", "--full"], Some(0))?;
    ensure!(full.contains("static_resources"), "the bootstrap is not there: {full}");
    before.expect_same(&snapshot(mesh)?)?;

    let _agent = mesh.join()?;
    let text = planned(mesh, &["plan", "--detailed-exitcode"], Some(0))?;
    ensure!(text == "This host is as `run` wants it.\n", "{text}");
    Ok(())
}

fn planned(mesh: &Mesh, args: &[&str], code: Option<i32>) -> Result<String> {
    let output = mesh.vm.agent(&mesh.network, args)?;
    ensure!(output.status.code() == code, "{args:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn bad_input(mesh: &mut Mesh) -> Result<()> {
    type Spoil = fn(&Path) -> Result<()>;
    let spoils: [(&str, Spoil); 6] = [
        ("cluster.env", |file| {
            Ok(fs::write(file, "TRUST_DOMAIN='cluster.local\n")?)
        }),
        ("cluster.env", |file| Ok(fs::remove_file(file)?)),
        ("mesh.yaml", |file| Ok(fs::write(file, "defaultConfig: [")?)),
        ("root-cert.pem", |file| {
            Ok(fs::write(file, "-----BEGIN CERTIFICATE-----\nAAAA\n")?)
        }),
        ("hosts", |file| {
            Ok(fs::write(file, "999.1.1.1 istiod.istio-system.svc\n")?)
        }),
        ("istio-token", |file| Ok(fs::write(file, vec![b'A'; 4 << 20])?)),
    ];
    let before = snapshot(mesh)?;
    for (name, spoil) in spoils {
        mesh.write_bundle()?;
        spoil(&mesh.vm.bundle().join(name))?;
        refused(mesh, name)?;
    }
    mesh.write_bundle()?;
    fs::write(
        mesh.vm.config(),
        "[join]\ndirectory = { path = \"/x\" }\n[intercept]\nbakcend = \"auto\"\n",
    )?;
    refused(mesh, "bakcend")?;
    before.expect_same(&snapshot(mesh)?)
}

/// `run` ends with 78 and names `what`.
fn refused(mesh: &Mesh, what: &str) -> Result<()> {
    let output = mesh.vm.agent(&mesh.network, &["run"])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.code() == Some(CONFIG),
        "with a bad {what}: {} {errors}",
        output.status
    );
    ensure!(errors.contains(what), "the error doesn't name {what}: {errors}");
    ensure!(
        !mesh.vm.state_folder().join("identity.json").exists(),
        "a bad {what} left an identity"
    );
    Ok(())
}

fn no_address(mesh: &mut Mesh) -> Result<()> {
    const WORDS: &str = "no interface that is up has an address";
    shell(mesh, "ip link set eth0 down")?;
    let validated = mesh.vm.agent(&mesh.network, &["config", "validate"])?;
    let said = String::from_utf8_lossy(&validated.stdout);
    ensure!(validated.status.success() && said.contains(WORDS), "{validated:?}");
    let run = mesh.vm.agent(&mesh.network, &["run"])?;
    ensure!(!run.status.success() && run.status.code() != Some(CONFIG), "{run:?}");
    let check = mesh.vm.agent(&mesh.network, &["check", "--only", "IVA202"])?;
    let said = String::from_utf8_lossy(&check.stdout);
    ensure!(said.contains(WORDS) && said.contains("(`ip address`)"), "{said}");
    shell(mesh, "ip link set eth0 up && ip route replace default via 10.200.0.1")?;
    mesh.join().map(drop)
}

/// Each flaw, and what is said of it.
fn refused_tokens(mesh: &mut Mesh) -> Result<()> {
    let before = snapshot(mesh)?;
    let vault = TokenClaims {
        aud: vec!["vault".to_owned()],
        ..bundle::claims()
    };
    let old = TokenClaims {
        exp: 1_700_000_000,
        ..bundle::claims()
    };
    let other = TokenClaims::of_service_account("onlineboutique", "cartservice");
    let cases = [
        (vault, "is for audience \"vault\""),
        (old, "expired at 2023-11-14T22:13:20Z: make a new one with `istioctl"),
        (other, "check the token's service account"),
    ];
    for (claims, words) in cases {
        bundle::write(&mesh.vm.bundle(), mesh.control_plane.stand_in()?, &claims, true)?;
        let mut agent = mesh.vm.start_agent(&mesh.network)?;
        eventually(format!("{words:?} to be said"), PATIENCE, || {
            let ended = agent.wait(Duration::ZERO).is_ok();
            let told = agent.output();
            ensure!(ended || told.contains(words), "{told}");
            ensure!(told.contains(words), "it ended without naming the cause: {told}");
            Ok(())
        })?;
        let _ = agent.stop();
        before.expect_same(&snapshot(mesh)?)?;
    }
    Ok(())
}

/// Beyond the 90 days of an istiod that nobody told another longest life.
fn refused_life(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    eventually("the key to be said", PATIENCE, || {
        let told = agent.output();
        ensure!(told.contains("identity.ttl is longer than istiod grants"), "{told}");
        Ok(())
    })?;
    // It has not joined, and may end as one that could not.
    let _ = agent.stop();
    Ok(())
}

fn short_lived(mesh: &mut Mesh) -> Result<()> {
    mesh.control_plane.stand_in()?.set_certificate_lifetime(SHORT_LIFE);
    let _agent = mesh.join()?;
    let calling = mesh.start_calls(50)?;
    // Beyond the end of the first one.
    calling.wait_for(1.5 * SHORT_LIFE.as_secs_f64())?;
    calling.stop()?.expect_all_answered()?;
    let certificates = mesh.control_plane.stand_in()?.certificates();
    let by: Vec<_> = certificates.iter().skip(1).map(|call| call.by).collect();
    let renewed = !by.is_empty() && by.iter().all(|by| *by == Authenticated::Certificate);
    ensure!(renewed, "renewed by {by:?}");
    Ok(())
}

fn snapshot(mesh: &Mesh) -> Result<Snapshot> {
    Snapshot::of(&mesh.network, Host::Vm, mesh.vm.etc())
}
