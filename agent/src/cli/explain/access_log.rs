//! The last failure in Envoy's access log, in Istio's text or JSON format. Pure.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cause::Cause;
use super::target::Target;

/// Beginning of Envoy's words for a call that an authorization policy denies.
const DENIED: &str = "rbac_access_denied";
/// User agent of the calls that `up` makes in the end.
const OWN: &str = "istio-vm-agent";

/// A call that failed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct LastError {
    /// The whole line.
    pub(super) line: String,
    /// HTTP status; 0 where there was no answer, or no HTTP.
    pub(super) status: u16,
    /// Envoy's flags (`%RESPONSE_FLAGS%`), where there are some: `UH`, `UF`, …
    pub(super) flags: Vec<String>,
    /// Envoy's words (`%RESPONSE_CODE_DETAILS%`, `%UPSTREAM_TRANSPORT_FAILURE_REASON%`).
    pub(super) details: String,
    /// The call, where the line tells it.
    pub(super) target: Option<Target>,
}

/// The fields of a line that are of use.
#[derive(Debug, Default)]
struct Fields<'a> {
    path: &'a str,
    status: &'a str,
    flags: &'a str,
    details: &'a str,
    reason: &'a str,
    agent: &'a str,
    authority: &'a str,
    cluster: &'a str,
    local: &'a str,
    remote: &'a str,
}

/// The last line of a log that tells of a failure.
pub(super) fn last_error(log: &str) -> Option<LastError> {
    log.lines().rev().find_map(|line| {
        let error = of_json(line).or_else(|| of_text(line))?;
        error.is_failure().then_some(error)
    })
}

impl LastError {
    fn is_failure(&self) -> bool {
        // A caller may go away once it has what it wants.
        let harmless: &[&str] = match self.status {
            200..300 => &["DPE", "DC", "DR"],
            _ => &["DPE"],
        };
        let has_flag = self.flags.iter().any(|flag| !harmless.contains(&flag.as_str()));
        // gRPC says in a 200 that a call was refused.
        self.status >= 400 || has_flag || self.details.contains(DENIED)
    }

    /// Envoy's flags, else what it says in their place.
    pub(super) fn word(&self) -> String {
        match (self.flags.is_empty(), self.details.is_empty()) {
            (false, _) => self.flags.join(","),
            (true, true) => format!("HTTP {}", self.status),
            (true, false) => format!("HTTP {} ({})", self.status, self.details),
        }
    }

    fn of(line: &str, fields: &Fields<'_>) -> Self {
        Self {
            line: line.trim().to_owned(),
            status: fields.status.parse().unwrap_or(0),
            flags: (fields.flags.split(','))
                .filter(|flag| !is_none(flag))
                .map(str::to_owned)
                .collect(),
            details: [fields.details, fields.reason]
                .iter()
                .filter(|it| !is_none(it))
                .copied()
                .collect::<Vec<_>>()
                .join(": "),
            target: fields.target(),
        }
    }

    /// True where a machine refused the connection.
    pub(super) fn is_refused(&self) -> bool {
        // `delayed_connect_error:_Connection_refused` as a detail, with blanks as a reason.
        self.details.replace('_', " ").contains("Connection refused")
    }

    /// The cause by Envoy's word, and the words for it.
    pub(super) fn cause(&self) -> (Cause, &'static str) {
        let says = |words: &str| self.details.contains(words);
        let has = |flag: &str| self.flags.iter().any(|it| it == flag);
        let is_tls = says("TLS_error") || says("CERTIFICATE_VERIFY_FAILED") || says("SSL");
        match () {
            () if says(DENIED) => (Cause::RbacDenied, "an authorization policy denied it"),
            () if says("filter_chain_not_found") => (Cause::StrictPlaintext, "no filter chain takes such a connection"),
            () if has("NC") => (Cause::NoCluster, "the route's cluster is not there"),
            () if has("NR") => (Cause::RouteMissing, "no route is for it"),
            () if has("UH") => (Cause::NoEndpoint, "the cluster has no healthy endpoint"),
            () if has("UO") => (Cause::CircuitOpen, "a circuit breaker is open"),
            () if has("FI") => (Cause::FaultAbort, "the mesh's configuration has calls fail on purpose"),
            () if has("DI") => (Cause::FaultDelay, "the mesh's configuration has calls wait on purpose"),
            () if has("RL") => (Cause::RateLimited, "a rate limit is used up"),
            () if has("UAEX") => (Cause::ExternalAuthorization, "an external authorizer denied it"),
            () if has("UT") || has("SI") || has("UMSDR") => (Cause::Timeout, "there was no answer in time"),
            () if has("UF") && is_tls => (Cause::PeerCertificate, "the TLS handshake with the endpoint failed"),
            () if has("UF") => (Cause::Unreachable, "no connection to the endpoint"),
            () if has("UC") || has("UR") || has("LR") => (Cause::PeerReset, "the other side closed the connection"),
            () if has("DC") || has("DR") => (Cause::CallerGone, "the caller went away before the answer"),
            () if says("direct_response") => (Cause::DirectResponse, "the route answers in the service's place"),
            () => (Cause::ApplicationError, "the application itself answered so"),
        }
    }
}

impl Fields<'_> {
    fn target(&self) -> Option<Target> {
        let address = |text: &str| text.parse::<SocketAddr>().ok();
        if self.cluster.starts_with("inbound") || self.cluster.starts_with("Inbound") {
            let (local, remote) = (address(self.local)?, address(self.remote));
            let peer: Option<IpAddr> = remote.map(|it| it.ip());
            return Some(Target::Inbound {
                peer,
                // It is over, so that conntrack knows it no more.
                peer_port: None,
                port: local.port(),
            });
        }
        let local = address(self.local);
        let authority = || {
            let (host, port) = self.authority.rsplit_once(':').unwrap_or((self.authority, ""));
            let port = port.parse().ok().or_else(|| Some(local?.port()))?;
            (!is_none(host)).then(|| (host.to_owned(), port))
        };
        let (host, port) = authority().or_else(|| local.map(|it| (it.ip().to_string(), it.port())))?;
        let path = (!is_none(self.path)).then(|| self.path.split('?').next().unwrap_or_default().to_owned());
        Some(Target::Outbound { host, port, path })
    }
}

fn is_none(field: &str) -> bool {
    field.is_empty() || field == "-"
}

/// Istio's JSON encoding (MeshConfig.accessLogEncoding).
fn of_json(line: &str) -> Option<LastError> {
    let document: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
    let text = |key: &str| document[key].as_str().unwrap_or_default();
    let status = document["response_code"]
        .as_u64()
        .map(|it| it.to_string())
        .unwrap_or_default();
    document.get("response_flags")?;
    let fields = Fields {
        path: text("path"),
        status: &status,
        flags: text("response_flags"),
        details: text("response_code_details"),
        reason: text("upstream_transport_failure_reason"),
        agent: text("user_agent"),
        authority: text("authority"),
        cluster: text("upstream_cluster"),
        local: text("downstream_local_address"),
        remote: text("downstream_remote_address"),
    };
    (fields.agent != OWN).then(|| LastError::of(line, &fields))
}

/// Istio's text format (pilot/pkg/model, EnvoyTextLogFormat), with whatever stands before it.
fn of_text(line: &str) -> Option<LastError> {
    // What a log puts before a line has no blank before a bracket and a year.
    let starts = line.match_indices("[20").map(|(at, _)| at);
    let words = starts.map(|at| words(&line[at..])).find(|words| words.len() >= 20)?;
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let request: Vec<&str> = word(1).split(' ').collect();
    let fields = Fields {
        path: request.get(1).copied().unwrap_or_default(),
        status: word(2),
        flags: word(3),
        details: word(4),
        reason: word(6),
        agent: word(12),
        authority: word(14),
        cluster: word(16),
        local: word(18),
        remote: word(19),
    };
    (fields.agent != OWN).then(|| LastError::of(line, &fields))
}

/// Words between blanks; a quoted one may have blanks in it.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word);
        rest = after.trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = r#"2026-11-26T18:00:00Z  INFO envoy::access: [2026-11-26T18:00:00.1Z] "POST /shop.Cart/Get HTTP/2" 503 UF upstream_reset_before_response_started{remote_connection_failure|TLS_error:|268435581:SSL_routines:CERTIFICATE_VERIFY_FAILED:TLS_error_end} - "TLS_error:|268435581|CERTIFICATE_VERIFY_FAILED" 0 0 12 - "-" "grpc" "id" "cartservice:7070" "10.200.0.4:7070" outbound|7070||cartservice.onlineboutique.svc.cluster.local - 10.96.186.61:7070 10.200.0.3:40000 - default"#;
    const DENIED: &str = r#"{"response_code":403,"response_flags":"-","response_code_details":"rbac_access_denied_matched_policy[none]","authority":"productcatalogservice:3550","upstream_cluster":"inbound|3550||","downstream_local_address":"10.200.0.3:3550","downstream_remote_address":"10.200.0.4:51000","path":"/"}"#;
    const FINE: &str = r#"[2026-11-26T18:00:00.1Z] "GET / HTTP/1.1" 200 - via_upstream - "-" 0 0 1 1 "-" "curl" "id" "cart:7070" "10.0.0.1:7070" outbound|7070||cart - 10.96.0.1:7070 10.0.0.3:1 - default"#;

    #[test]
    fn last_failure_is_found_with_its_call_and_cause() {
        let log = format!("{DENIED}\n{REFUSED}\n{FINE}\nnothing of Envoy's\n");
        let error = last_error(&log).unwrap();
        assert_eq!((error.status, error.cause().0), (503, Cause::PeerCertificate));
        assert_eq!(error.target.unwrap().to_string(), "cartservice:7070/shop.Cart/Get");
        let error = last_error(DENIED).unwrap();
        assert_eq!(error.cause().0, Cause::RbacDenied);
        assert_eq!(error.target.unwrap().to_string(), "10.200.0.4->:3550");
        assert_eq!(last_error(FINE), None);
    }

    #[test]
    fn refusal_in_a_200_is_a_failure_and_a_caller_that_has_its_answer_and_goes_is_none() {
        let refused = FINE.replace("via_upstream", "rbac_access_denied_matched_policy[none]");
        let error = last_error(&refused).unwrap();
        assert_eq!(error.cause().0, Cause::RbacDenied);
        assert_eq!(error.word(), "HTTP 200 (rbac_access_denied_matched_policy[none])");
        for gone in ["DC", "DR", "DPE"] {
            assert_eq!(
                last_error(&FINE.replace("200 -", &format!("200 {gone}"))),
                None,
                "{gone}"
            );
        }
        let late = FINE.replace("200 - via_upstream", "0 DC downstream_remote_disconnect");
        assert_eq!(last_error(&late).unwrap().cause().0, Cause::CallerGone);
    }

    #[test]
    fn call_that_up_made_is_nobody_s_failure() {
        let own = REFUSED.replace("\"grpc\"", "\"istio-vm-agent\"");
        let by_json = DENIED.replace(
            "{\"response_code\"",
            "{\"user_agent\":\"istio-vm-agent\",\"response_code\"",
        );
        assert_eq!(last_error(&format!("{own}\n{by_json}\n")), None);
    }

    proptest::proptest! {
        #[test]
        fn access_log_of_any_text_is_read(text in "([0-9\\[ \"{}:>|-]|\\[20|\n|\\PC){0,80}") {
            let _ = last_error(&text);
        }
    }
}
