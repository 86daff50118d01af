//! `version`: of this program, of Envoy, and of the agent that runs, which an upgrade may have left behind.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::configuration::ConfigSource;
use super::{Outcome, Output, print};
use crate::envoy::{self, ISTIO_VERSION, Located};
use crate::host::Host;
use crate::release::{COMMIT, VERSION};
use crate::status::{Agent, QUICK_TIMEOUT, Status, ask};

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    let host = Host::system();
    let config = ConfigSource::at_hand_or_default(path, &host)?;
    let running = ask(&config.paths.status_socket(), QUICK_TIMEOUT).await;
    let options = envoy::Options::new(host.clone(), &config, None);
    let configured = match envoy::locate(&options) {
        Located::Here(program) => envoy::version(&host, &program).map_err(|error| format!("{error:#}")),
        Located::ToFetch(_) => Err(format!("{} is not fetched yet", config.envoy.source())),
    };
    let document = document(configured, running.as_ref());
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&document)? + "\n",
        Output::Text => text(&document),
    })
}

/// The JSON document: a version that isn't known is null, and beside it the reason in words.
fn document(configured: Result<String, String>, running: Result<&Status, &String>) -> Value {
    let versions = |key: &str| running.ok()?.sections.get("versions")?.get(key).cloned();
    let agent = match running.map(|status| &status.agent) {
        Ok(Agent::Running { version, pid, .. } | Agent::Joining { version, pid, .. }) => {
            json!({ "version": version, "commit": versions("commit"), "pid": pid })
        }
        Ok(Agent::NotAnswering { reason }) => json!({ "version": null, "reason": reason }),
        Err(reason) => json!({ "version": null, "reason": reason }),
    };
    let mut envoy = json!({ "configured": configured.as_ref().ok(), "running": versions("envoy") });
    if let Err(reason) = &configured {
        envoy["reason"] = json!(reason);
    }
    json!({
        "version": VERSION,
        "commit": COMMIT,
        "istio": ISTIO_VERSION,
        "envoy": envoy,
        "agent": agent,
    })
}

fn text(document: &Value) -> String {
    let word = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    let configured = match (word("/envoy/configured"), word("/envoy/reason")) {
        (Some(version), _) => version.to_owned(),
        (None, reason) => format!("not known ({})", reason.unwrap_or_default()),
    };
    let serving = match word("/envoy/running") {
        Some(version) => format!("; {version} runs"),
        None => String::new(),
    };
    let agent = match (word("/agent/version"), word("/agent/commit")) {
        (Some(version), commit) => {
            let pid = document
                .pointer("/agent/pid")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            let commit = commit.map(|commit| format!(" ({commit})")).unwrap_or_default();
            format!("{version}{commit} runs, pid {pid}")
        }
        (None, _) => word("/agent/reason").unwrap_or_default().to_owned(),
    };
    format!(
        "istio-vm-agent {VERSION} ({COMMIT})\nIstio          as {ISTIO_VERSION}\nEnvoy          {configured}{serving}\n\
         Agent          {agent}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn running_agent_and_envoy_are_told_apart_from_those_on_the_disk() {
        let status = Status {
            agent: Agent::Running {
                version: "0.0.9".to_owned(),
                pid: 7,
                since: SystemTime::UNIX_EPOCH,
                process_since: None,
                node: "vm.shop".to_owned(),
                control_plane: "istiod:15012".to_owned(),
            },
            sections: [("versions".to_owned(), json!({"commit": "abc", "envoy": "1.38.0"}))].into(),
            ..Status::default()
        };
        let document = document(Ok("1.39.1".to_owned()), Ok(&status));
        assert_eq!(
            document["agent"],
            json!({"version": "0.0.9", "commit": "abc", "pid": 7})
        );
        let (own, istio) = (json!(COMMIT), json!(ISTIO_VERSION));
        assert_eq!((&document["commit"], &document["istio"]), (&own, &istio));
        let text = text(&document);
        let head = format!("istio-vm-agent {VERSION} ({COMMIT})\nIstio          as {ISTIO_VERSION}\n");
        assert!(text.starts_with(&head), "{text}");
        assert!(text.contains("Envoy          1.39.1; 1.38.0 runs\n"), "{text}");
        assert!(text.ends_with("Agent          0.0.9 (abc) runs, pid 7\n"), "{text}");
    }

    #[test]
    fn version_that_is_not_known_is_told_with_its_reason() {
        let reason = "not running".to_owned();
        let document = document(Err("failed to run Envoy".to_owned()), Err(&reason));
        assert_eq!(document["envoy"]["configured"], Value::Null);
        let text = text(&document);
        assert!(
            text.contains("Envoy          not known (failed to run Envoy)\n"),
            "{text}"
        );
        assert!(text.ends_with("Agent          not running\n"), "{text}");
    }
}
