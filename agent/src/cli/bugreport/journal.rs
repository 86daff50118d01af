//! Our units' lines of the journal, without the paths that callers of this VM asked for.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use serde_json::{Map, Value};

use crate::facts::date_with_micros;
use crate::host::{Host, Invocation};

/// Most lines, the newest.
const LINES: &str = "4000";
/// Envoy's access log: paths and headers of requests are the callers'.
const ACCESS: &str = "envoy::access";
/// Envoy's own log, which has headers of requests at the levels below notice (`telemetry`'s for INFO).
const ENVOY: &str = "envoy";
const NOTICE: u8 = 5;
/// Envoy's loggers of words that are anybody's: of programs in it, and of lines that go on with what one before began.
const PROGRAMS: [&str; 3] = ["", "lua", "wasm"];

/// The lines as text: time, unit, level, target, message, fields.
pub(super) async fn text(host: Host) -> Result<String> {
    let call = Invocation::new([
        "journalctl",
        "--no-pager",
        "--output=json",
        "--lines",
        LINES,
        "--unit=istio-vm-agent*",
    ]);
    let lines = host.blocking(move |host| Ok(host.run(&call)?)).await?;
    Ok(lines.lines().filter_map(line).collect())
}

pub(super) fn line(json: &str) -> Option<String> {
    let entry: Map<String, Value> = serde_json::from_str(json).ok()?;
    let get = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
    let is_of_request = match get("TARGET") {
        ACCESS => true,
        ENVOY => PROGRAMS.contains(&get("LOGGER")) || get("PRIORITY").parse().is_ok_and(|level: u8| level > NOTICE),
        _ => false,
    };
    if is_of_request {
        return None;
    }
    let microseconds: u64 = get("__REALTIME_TIMESTAMP").parse().ok()?;
    let moment = UNIX_EPOCH + Duration::from_micros(microseconds);
    let (time, message) = (date_with_micros(moment), get("MESSAGE"));
    let (unit, level, target) = (get("_SYSTEMD_UNIT"), get("PRIORITY"), get("TARGET"));
    let fields: String = entry
        .iter()
        .filter(|(key, _)| is_ours(key))
        .map(|(key, value)| format!(" {}={value}", key.to_lowercase()))
        .collect();
    Some(format!("{time} {unit} <{level}> {target}: {message}{fields}\n"))
}

/// A field of an event: not journald's, nor one that is told already or says where in our source.
fn is_ours(key: &str) -> bool {
    let told = ["MESSAGE", "PRIORITY", "TARGET", "SYSLOG_IDENTIFIER", "SYSLOG_FACILITY"];
    !key.starts_with('_') && !key.starts_with("CODE_") && !told.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_has_the_event_s_fields_and_none_is_about_a_request() {
        let entry = r#"{"__REALTIME_TIMESTAMP":"1795231431000000","_SYSTEMD_UNIT":"istio-vm-agent.service","_PID":"7",
            "PRIORITY":"4","TARGET":"istio_vm_agent::xds","MESSAGE":"Envoy's stream ended","REASON":"gone","CODE_LINE":"3"}"#;
        let told = line(entry).unwrap();
        let wanted = "2026-11-21T03:23:51.000000Z istio-vm-agent.service <4> istio_vm_agent::xds: Envoy's stream ended \
                      reason=\"gone\"\n";
        assert_eq!(told, wanted);
        assert_eq!(line(&entry.replace("istio_vm_agent::xds", ACCESS)), None);
        let of_envoy = entry
            .replace("istio_vm_agent::xds", "envoy")
            .replace("REASON\":\"gone", "LOGGER\":\"main");
        assert!(line(&of_envoy).is_some());
        assert_eq!(
            line(&of_envoy.replace("\"PRIORITY\":\"4\"", "\"PRIORITY\":\"6\"")),
            None
        );
        assert_eq!(
            line(&of_envoy.replace("\"LOGGER\":\"main\"", "\"LOGGER\":\"lua\"")),
            None
        );
        assert_eq!(line(&of_envoy.replace("\"LOGGER\":\"main\",", "")), None);
        assert_eq!(line("{"), None);
        let never = line(&entry.replace("1795231431000000", &u64::MAX.to_string())).unwrap();
        assert!(never.starts_with("a time after 9999 istio-vm-agent.service"), "{never}");
    }
}
