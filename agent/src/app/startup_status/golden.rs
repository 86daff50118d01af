//! The example of the document that programs are written against, `tests/golden/status.json`: a key that goes, or means
//! something else, is seen here, and needs another version of the document. The text beside it is what people see.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::*;
use crate::config::Config;
use crate::control_plane::fixtures::membership;
use crate::facts::{
    ContainerState, Credentials, EnvoyState, InterceptState, LastProbe, PrivateKey, ProbeState, XdsState,
};
use crate::part::Problems;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431 + seconds)
}

/// A VM that serves while istiod is away.
fn channels(shared: Shared) -> Channels {
    let mut member = membership();
    let group = "ISTIO_META_AUTO_REGISTER_GROUP".to_owned();
    member.env.insert(group, "catalog".to_owned());
    let spiffe_id = member.spiffe_id.clone();
    let channels = Channels::new(member, &Config::default(), shared);
    channels.credentials.send_replace(Some(Arc::new(Credentials {
        spiffe_id,
        chain_pem: String::new(),
        key: PrivateKey::new(""),
        roots_pem: String::new(),
        not_before: at(0),
        not_after: at(24 * 60 * 60),
        serial: "0a1b".to_owned(),
        issued_with: None,
    })));
    channels.xds.send_replace(XdsState {
        since: Some(at(60)),
        last_error: Some("failed to connect to istiod.istio-system.svc:15012: no route to host".to_owned()),
        envoy_connected: true,
        names: Some(12),
        last_push: Some(at(59)),
        ..XdsState::default()
    });
    channels.envoy.send_replace(EnvoyState::Ready {
        pid: 812,
        adopted: false,
        restarts: 0,
        successor: None,
    });
    channels.envoy_version.send_replace(Some("1.38.3".to_owned()));
    channels.intercept.send_replace(InterceptState::Active {
        backend: "nftables".to_owned(),
        rules: 41,
        open_bridge: None,
    });
    channels.workloads[0].container.send_replace(ContainerState::Running {
        id: "0123456789ab".to_owned(),
        restarts: 1,
        outdated: false,
        address: Some([172, 17, 0, 2].into()),
        successor: None,
        trouble: None,
        exposed: Vec::new(),
        healthcheck: ProbeState::NotConfigured,
    });
    channels.probe.send_replace(ProbeState::Healthy);
    channels.counts.probe.last.send_replace(Some(LastProbe {
        at: at(88),
        failure: None,
    }));
    let problem =
        "istiod is not reached since 2026-11-21T03:24:51Z, Envoy keeps its last configuration: no route to host";
    let problems = Problems::default().amiss(Code::IstiodUnreachable, [problem.to_owned()]);
    channels.health.send_replace(health::aggregate([problems].into_iter()));
    channels
}

fn status() -> Status {
    let started = Started {
        since: at(0),
        process: Some(at(0)),
    };
    let startup_status = StartupStatus {
        source: "the bundle".to_owned(),
        started,
        shared: Shared::default(),
        parts: crate::app::parts(None).into(),
        joined: Arc::default(),
    };
    startup_status.joined(channels);
    let mut status = startup_status.document()();
    // What is this machine's, this build's, and of the moment.
    status.agent = running(started, &startup_status.joined(channels));
    if let Agent::Running { version, pid, .. } = &mut status.agent {
        (*version, *pid) = ("1.0.0".to_owned(), 700);
    }
    for (key, of_here) in [
        (
            "control_planes",
            json!({
                "current": "istiod.istio-system.svc:15012",
                "since": "2026-11-21T03:23:51Z",
                "reason": null,
                "all": [{
                    "address": "istiod.istio-system.svc:15012",
                    "since": "2026-11-21T03:24:51Z",
                    "state": "unwell",
                    "error": "no route to host",
                }],
            }),
        ),
        ("dns", json!({ "captured": true, "servers": ["10.0.0.2"] })),
        (
            "versions",
            json!({ "agent": "1.0.0", "commit": "0123456789ab", "istio": "1.30.0", "envoy": "1.38.3" }),
        ),
    ] {
        let made = status.sections.insert(key.to_owned(), of_here.clone()).unwrap();
        let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&made), keys(&of_here));
    }
    status
}

fn documents() -> [(PathBuf, String); 2] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/status");
    let status = status();
    let sections: Vec<_> = crate::app::parts(None)
        .iter()
        .flat_map(|part| part.sections())
        .collect();
    [
        (
            folder.join("status.json"),
            serde_json::to_string_pretty(&status).unwrap() + "\n",
        ),
        (folder.join("status.txt"), status.to_text(&sections, at(90))),
    ]
}

#[test]
fn example_is_what_the_agent_says() {
    for (path, text) in documents() {
        let written = fs::read_to_string(&path).unwrap_or_default();
        let remedy = "run `cargo test -p istio-vm-agent --lib -- --ignored write_the_status`";
        assert!(written == text, "{} is out of date: {remedy}\n{text}", path.display());
    }
}

#[test]
#[ignore = "writes tests/golden/status"]
fn write_the_status() {
    for (path, text) in documents() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
