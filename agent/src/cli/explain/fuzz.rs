//! Fuzz targets: Envoy's account of itself, and its access log.

use super::connection::Connection;
use super::fixtures::well;
use super::{access_log, collect, explain, text};
use crate::envoy::view::Dump;
use crate::terminal::Paint;

/// Reads a `/config_dump` and, behind a NUL, an answer of `/clusters?format=json`, and explains calls both ways by them.
pub(crate) fn envoy_dump(input: &str) {
    let (dump, clusters) = input.split_once('\0').unwrap_or((input, "{}"));
    let (Ok(dump), Ok(statuses)) = (Dump::parse(dump), serde_json::from_str(clusters)) else {
        return;
    };
    let envoy = collect::envoy(&dump, statuses);
    for target in ["cartservice:7070/a", "10.200.0.4->:3550"] {
        let mut state = well(target);
        state.envoy = Ok(envoy.clone());
        let chain = explain(&state);
        let text = text::render(&state.question.target, &chain, Paint::PLAIN);
        assert!(text.lines().count() >= chain.steps.len(), "a step is a line: {text}");
        assert!(chain.decision().is_none_or(|step| step.cause.is_some()));
    }
}

/// Finds a connection in the kernel's list.
pub(crate) fn connections(text: &str) {
    let peer = ([10, 1, 2, 3], 40000).into();
    if let Some(found) = Connection::find(text, peer, |_| true, 3550) {
        assert!(text.contains("10.1.2.3") && text.contains(&found.tcp));
    }
}

/// Finds the last failure in an access log.
pub(crate) fn access_log(text: &str) {
    if let Some(error) = access_log::last_error(text) {
        assert!(text.contains(&error.line));
        let _ = error.cause();
    }
}
