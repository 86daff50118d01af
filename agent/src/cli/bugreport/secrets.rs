//! How secrets stay out of a report.

use anyhow::{Context, Result};
use serde_json::Value;

/// What stands where something was cut.
const CUT: &str = "(cut)";

/// Keys of Envoy's documents whose strings are names, addresses, versions or times. The string of any other is cut:
/// headers, Wasm's configurations and metadata are anybody's, and may be secrets.
const KNOWN: [&str; 72] = [
    "@type",
    "ISTIO_VERSION",
    "CLUSTER_ID",
    "MESH_ID",
    "NAME",
    "NAMESPACE",
    "NETWORK",
    "INSTANCE_IPS",
    "SERVICE_ACCOUNT",
    "WORKLOAD_NAME",
    "address",
    "address_prefix",
    "alt_stat_name",
    "application_protocols",
    "client_status",
    "cluster",
    "cluster_name",
    "codec_type",
    "connect_timeout",
    "days_until_expiration",
    "destination_port",
    "discovery_type",
    "domains",
    "dns_lookup_family",
    "drain_timeout",
    "expiration_time",
    "filename_of",
    "forward_client_cert_details",
    "hot_restart_version",
    "id",
    "idle_timeout",
    "interval",
    "last_attempt_configuration",
    "last_update_attempt",
    "last_updated",
    "lb_policy",
    "max_interval",
    "mode",
    "name",
    "num_retries",
    "path",
    "path_separated_prefix",
    "pipe",
    "prefix",
    "priority",
    "protocol",
    "region",
    "resource_api_version",
    "resource_name",
    "retry_on",
    "route_config_name",
    "sampling",
    "serial_number",
    "server_names",
    "service_name",
    "sni",
    "socket_address",
    "source_type",
    "stat_prefix",
    "state",
    "sub_zone",
    "subset",
    "timeout",
    "tls_maximum_protocol_version",
    "tls_minimum_protocol_version",
    "transport_protocol",
    "type",
    "type_url",
    "uptime_current_epoch",
    "valid_from",
    "version",
    "version_info",
];

/// A document of Envoy's with the strings of known keys, and all numbers.
pub(super) fn known_values(document: &str) -> Result<String> {
    let mut document: Value = serde_json::from_str(document).context("Envoy's answer is no JSON")?;
    keep_known("", &mut document);
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn keep_known(key: &str, value: &mut Value) {
    match value {
        Value::String(text) if !KNOWN.contains(&key) && !text.starts_with("spiffe://") => CUT.clone_into(text),
        Value::Array(values) => values.iter_mut().for_each(|value| keep_known(key, value)),
        Value::Object(members) => members.iter_mut().for_each(|(key, value)| keep_known(key, value)),
        _ => {}
    }
}

/// The text without what looks like a private key or a token: what should not have been there.
pub(super) fn scrubbed(text: &str) -> String {
    let mut is_key = false;
    let mut scrubbed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let begins = line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----");
        if begins || is_key {
            is_key = !line.contains("-----END ");
            if !is_key {
                scrubbed += CUT;
                scrubbed.push('\n');
            }
            continue;
        }
        scrubbed += &without_tokens(line);
    }
    if is_key { scrubbed + CUT } else { scrubbed }
}

/// A JSON Web Token is three words of base64url with dots between, the first of which is an object in braces: `eyJ`.
fn without_tokens(line: &str) -> String {
    let is_of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut rest = line;
    let mut kept = String::new();
    while let Some(at) = rest.find("eyJ") {
        let (before, word) = rest.split_at(at);
        let (token, after) = word.split_at(word.find(|c| !is_of_token(c)).unwrap_or(word.len()));
        kept += before;
        kept += if token.matches('.').count() >= 2 { CUT } else { token };
        rest = after;
    }
    kept + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_unknown_keys_are_cut_wherever_they_are() {
        let document = r#"{"configs":[{"@type":"a.B","name":"listener","port_value":15006,"headers":[
            {"header":{"key":"authorization","value":"Bearer s3cret"}}],"uri":"spiffe://a/ns/b/sa/c",
            "metadata":{"PROXY_CONFIG":{"proxyMetadata":{"TOKEN":"s3cret"}}},"plain":["s3cret"]}]}"#;
        let kept = known_values(document).unwrap();
        assert!(
            !kept.contains("s3cret") && kept.contains("\"listener\"") && kept.contains("15006"),
            "{kept}"
        );
        assert!(kept.contains("spiffe://a/ns/b/sa/c"), "{kept}");
        assert!(known_values("no JSON").is_err());
    }

    #[test]
    fn keys_and_tokens_are_cut_out_of_any_text() {
        let text = "a\n  -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nb eyJhbGciOi.eyJzdWIi.c2ln, eyJ and c\n";
        assert_eq!(scrubbed(text), "a\n(cut)\nb (cut), eyJ and c\n");
        assert_eq!(scrubbed("-----BEGIN PRIVATE KEY-----\nMHc\n"), "(cut)");
        let one_line = r#""key": "-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\n"#;
        assert!(!scrubbed(one_line).contains("MHc"));
    }

    #[test]
    fn known_keys_are_known_once() {
        let mut keys = KNOWN.to_vec();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), KNOWN.len());
    }
}
