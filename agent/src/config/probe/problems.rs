//! Probes that can't be, whoever writes it: the operator, or a WorkloadGroup.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use humantime::format_duration;

use crate::facts::{Probe, ProbeKind, is_host_name};

/// A probe that is asked more often than this is most of the application's work.
const SHORTEST: Duration = Duration::from_millis(100);
/// An application that hangs is healthy until then.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// A value of a probe that makes no sense.
pub(crate) struct Problem {
    /// Key in the operator's file.
    pub(super) key: &'static str,
    /// Field in a WorkloadGroup.
    pub(crate) field: &'static str,
    /// The value as it is written, and what is wrong with it.
    pub(crate) words: String,
}

/// All of them but ports and thresholds.
pub(crate) fn problems(probe: &Probe) -> Vec<Problem> {
    let times = [
        (
            "initial_delay",
            "initialDelaySeconds",
            Duration::ZERO,
            probe.initial_delay,
        ),
        ("timeout", "timeoutSeconds", SHORTEST, probe.timeout),
        ("period", "periodSeconds", SHORTEST, probe.period),
    ];
    let wrong = times
        .into_iter()
        .filter(|(.., shortest, time)| !(*shortest..=LONGEST).contains(time));
    let times = wrong.map(|(key, field, shortest, time)| Problem {
        key,
        field,
        words: format!(
            "\"{}\": must be from {} to {}, such as \"1s\"",
            format_duration(time),
            format_duration(shortest),
            format_duration(LONGEST)
        ),
    });
    times.chain(of_kind(&probe.kind)).collect()
}

fn of_kind(kind: &ProbeKind) -> Vec<Problem> {
    let problem = |key, field, words| Problem { key, field, words };
    match kind {
        ProbeKind::Grpc { .. } => Vec::new(),
        ProbeKind::Tcp { host, .. } => {
            let words = host.as_deref().and_then(of_host);
            words
                .map(|words| problem("tcp.host", "tcpSocket.host", words))
                .into_iter()
                .collect()
        }
        ProbeKind::Exec { command } => {
            let words = of_command(command);
            words
                .map(|words| problem("exec.command", "exec.command", words))
                .into_iter()
                .collect()
        }
        ProbeKind::Http {
            host, path, headers, ..
        } => [
            ("http.host", "httpGet.host", host.as_deref().and_then(of_host)),
            ("http.path", "httpGet.path", of_path(path)),
            ("http.headers", "httpGet.httpHeaders", of_headers(headers)),
        ]
        .into_iter()
        .filter_map(|(key, field, words)| Some(problem(key, field, words?)))
        .collect(),
    }
}

fn of_host(host: &str) -> Option<String> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let is_host = bare.parse::<IpAddr>().is_ok() || is_host_name(host);
    (!is_host).then(|| {
        format!("{host:?}: is neither an address of this VM nor a host name, such as \"localhost\"; leave it out for the VM's own")
    })
}

fn of_path(path: &str) -> Option<String> {
    let is_wrong = |c: char| c.is_control() || c == '#';
    path.contains(is_wrong)
        .then(|| format!("{path:?}: has a control character or a '#', which no server is sent, such as \"/healthz\""))
}

/// Values are not quoted, which may be secrets.
fn of_headers(headers: &[(String, String)]) -> Option<String> {
    let is_header =
        |(name, value): &&(String, String)| HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value).is_ok();
    let (name, _) = headers.iter().find(|header| !is_header(header))?;
    Some(format!("{name:?}: is no header that HTTP has, such as X-Probe = \"1\""))
}

fn of_command(command: &[String]) -> Option<String> {
    let is_wrong = command.first().is_none_or(String::is_empty) || command.iter().any(|word| word.contains('\0'));
    is_wrong.then(|| {
        format!(
            "{:?}: must begin with a program, and have no NUL",
            command.first().map_or("", String::as_str)
        )
    })
}
