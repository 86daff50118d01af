//! Fuzz target: the tables of what Envoy says, whatever that is.

use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::{clusters, endpoints, listeners, routes, secrets, yaml};
use crate::cli::Output;
use crate::envoy::view::Dump;

/// Shows a `/config_dump` and, behind a NUL, an answer of `/clusters?format=json`.
pub(crate) fn tables(input: &str) {
    let (dump, statuses) = input.split_once('\0').unwrap_or((input, "[]"));
    let (Ok(dump), Ok(Value::Array(statuses))) = (Dump::parse(dump), serde_json::from_str(statuses)) else {
        return;
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for output in [Output::Text, Output::Json] {
        let shown = [
            clusters::Filter::default().shown(&dump, output),
            listeners::Filter::default().shown(&dump, output),
            routes::Filter::default().shown(&dump, output),
            endpoints::Filter::default().shown(&statuses, output),
            secrets::shown(&dump, output, now),
        ];
        for text in shown {
            let text = text.expect("what is read can be shown");
            assert!(text.ends_with('\n') && yaml(&text).is_ok());
        }
    }
}
