//! `check` finds what would keep the VM from joining, says what to do about it, and its exit code tells.

mod acts;
mod commands;
mod doctor;
mod swarm;

use std::fs;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use e2e::bundle;
use e2e::istiod::TokenClaims;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::{Application, Settings};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::stand_in_only;

/// sysexits.h: EX_USAGE, EX_CONFIG.
const USAGE: i32 = 64;
const CONFIG: i32 = 78;

pub(crate) fn trials() -> Vec<Trial> {
    let case = |name, case: fn(&mut Mesh) -> Result<()>| {
        stand_in_only(name, move || {
            let settings = Settings {
                application: Application::None,
                ..Settings::default()
            };
            with_mesh(Kind::StandIn, settings, case)
        })
    };
    vec![
        case("check: all is well on a good VM, and on one that has joined", good),
        case("check: what is broken is named with its remedy, exit 1", broken),
        case("check: what hangs is named, and all else is told", doctor::hangs),
        case("check: goes on after a failed join", doctor::goes_on),
        case(
            "check: asks for one certificate, and only what it is told to",
            doctor::asks_for_one_certificate,
        ),
        case("check: waits until nothing fails", doctor::waits),
        case(
            "check: a fix that is a command leads out of the trouble",
            commands::lead_out,
        ),
        case(
            "check: a fix in words leads out of the trouble",
            commands::lead_out_in_words,
        ),
        case(
            "check: a fix that takes another user, disk, token or Envoy leads out of the trouble",
            acts::lead_out,
        ),
        case("wrong usage: exit 64; wrong configuration: exit 78", misused),
        stand_in_only(
            "check: a manager of a swarm serves, and is told what dockerd can't do there",
            || {
                let settings = Settings {
                    application: Application::Container,
                    fixed_address: false,
                    ..Settings::default()
                };
                with_mesh(Kind::StandIn, settings, swarm::of_a_manager)
            },
        ),
    ]
}

fn good(mesh: &mut Mesh) -> Result<()> {
    let findings = check(mesh, 0)?;
    for wanted in [
        "privileges",
        "envoy",
        "interception",
        "token",
        "control plane",
        "CA's signature",
        "versions",
        "ports",
    ] {
        let (level, detail) = finding(&findings, wanted)?;
        // The Envoy of the tests is nobody's build but Envoy's.
        let plain = wanted == "envoy" && level == "warning" && detail.contains("without Istio's own filters");
        ensure!(level == "ok" || plain, "{wanted} is {level}: {detail}");
    }
    let (level, _) = finding(&findings, "certificate")?;
    ensure!(level == "skipped", "no certificate is {level}");
    for (istiod, wanted, says) in [
        ("1.33.1", "ok", "is Istio 1.32's"),
        ("1.34.0", "warning", "2 minor versions behind"),
        ("1.31.0", "warning", "newer than the control plane"),
        ("", "skipped", "doesn't say which Istio it is"),
    ] {
        mesh.control_plane.stand_in()?.set_version(istiod);
        let findings = check(mesh, 0)?;
        let (level, detail) = finding(&findings, "versions")?;
        ensure!(level == wanted && detail.contains(says), "{istiod}: {level}: {detail}");
    }
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    agent.wait_until_ready(&mesh.network)?;
    let (level, detail) = finding(&check(mesh, 0)?, "certificate")?;
    ensure!(
        level == "ok" && detail.starts_with("valid until"),
        "the certificate of a running agent is {level}: {detail}"
    );
    Ok(())
}

/// A fault, and the words of `check` about it.
struct Broken {
    breaks: fn(&mut Mesh) -> Result<()>,
    finding: &'static str,
    says: &'static [&'static str],
}

const BROKEN: &[Broken] = &[
    Broken {
        breaks: |mesh| Ok(fs::remove_file(mesh.vm.envoy())?),
        finding: "envoy",
        says: &["/vm/envoy", "set envoy.binary"],
    },
    Broken {
        breaks: |mesh| {
            let claims = TokenClaims {
                exp: 1_700_000_000,
                ..bundle::claims()
            };
            bundle::write(&mesh.vm.bundle(), mesh.control_plane.stand_in()?, &claims, true)
        },
        finding: "token",
        says: &["istio-token", "expired", "istioctl x workload entry configure"],
    },
    Broken {
        breaks: |mesh| {
            // The bundle of another mesh, at this one's address.
            let other = e2e::pki::Pki::default();
            Ok(fs::write(mesh.vm.bundle().join("root-cert.pem"), other.root_pem())?)
        },
        finding: "control plane",
        says: &["istiod.istio-system.svc:15012", "root-cert.pem"],
    },
    Broken {
        // As istioctl leaves it where the ingress has no address.
        breaks: |mesh| Ok(fs::write(mesh.vm.bundle().join("hosts"), "")?),
        finding: "control plane",
        says: &[
            "failed to resolve istiod.istio-system.svc",
            "hosts file has no line for it",
        ],
    },
    Broken {
        breaks: |mesh| mesh.vm.set_clock(-3650),
        finding: "control plane",
        says: &["not valid yet", "timedatectl set-ntp true"],
    },
    Broken {
        breaks: |mesh| {
            mesh.vm.set_clock(0)?;
            mesh.kill_istiod()
        },
        finding: "control plane",
        says: &["istiod.istio-system.svc:15012", "refused"],
    },
];

fn broken(mesh: &mut Mesh) -> Result<()> {
    for Broken {
        breaks,
        finding: name,
        says,
    } in BROKEN
    {
        mesh.write_bundle()?;
        breaks(mesh)?;
        let findings = check(mesh, 1)?;
        let (level, detail) = finding(&findings, name)?;
        ensure!(level == "failed", "{name} is {level}: {detail}");
        let missing: Vec<_> = says.iter().filter(|word| !detail.contains(**word)).collect();
        ensure!(missing.is_empty(), "{name} doesn't say {missing:?}: {detail}");
    }
    // For people: what failed leaps to the eye.
    let output = mesh.vm.agent(&mesh.network, &["check"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(text.contains("FAILED   IVA501  envoy"), "{text}");
    Ok(())
}

fn misused(mesh: &mut Mesh) -> Result<()> {
    for args in [
        &["chekc"][..],
        &["check", "--outptu", "json"],
        &["status", "--output", "yaml"],
    ] {
        let output = mesh.vm.agent(&mesh.network, args)?;
        ensure!(output.status.code() == Some(USAGE), "{args:?}: {output:?}");
    }
    fs::write(mesh.vm.config(), "[join]\ndirectory = { path = \"bundle\" }\n")?;
    for verb in ["check", "run", "plan"] {
        let output = mesh.vm.agent(&mesh.network, &[verb])?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(CONFIG), "{verb}: {output:?}");
        ensure!(errors.contains("join.directory.path"), "{verb}: {errors}");
    }
    Ok(())
}

/// The findings, by name.
fn check(mesh: &Mesh, exit: i32) -> Result<Value> {
    let output = mesh.vm.agent(&mesh.network, &["check", "--output", "json"])?;
    ensure!(output.status.code() == Some(exit), "check: {output:?}");
    findings(&output)
}

/// The findings that a check printed.
fn findings(output: &Output) -> Result<Value> {
    let mut document: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("check printed {output:?}"))?;
    ensure!(document["version"] == 1, "{document}");
    Ok(document["findings"].take())
}

fn finding(findings: &Value, name: &str) -> Result<(String, String)> {
    let mut all = findings.as_array().into_iter().flatten();
    let found = all.find(|finding| finding["name"] == name);
    let found = found.with_context(|| format!("no finding {name:?} in {findings}"))?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((text("level"), format!("{}: {}", text("detail"), text("fix"))))
}
