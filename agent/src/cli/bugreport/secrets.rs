//! Secrets are cut out of a report here.

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::fields::{Field, Fields, TYPES};

/// Text in the place of something that was cut.
const CUT: &str = "(cut)";

/// A document of Envoy's with the fields that are known, and nothing else of it.
pub(super) fn known_fields(document: &str, fields: Fields) -> Result<String> {
    let mut document: Value = serde_json::from_str(document).context("Envoy's answer is no JSON")?;
    is_kept(&mut document, Field::Message(fields));
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

/// Takes out of a value what is not known; false when nothing of it is.
fn is_kept(value: &mut Value, field: Field) -> bool {
    match (value, field) {
        (Value::Array(values), _) => values.retain_mut(|value| is_kept(value, field)),
        (Value::String(_), Field::Text) => {}
        (Value::String(path), Field::Path) => path.truncate(path.find('?').unwrap_or(path.len())),
        (Value::Object(members), Field::Message(fields)) => keep_fields(members, fields),
        (Value::Object(members), Field::Each(field)) => members.retain(|_, value| is_kept(value, *field)),
        (Value::Object(members), Field::Members(names)) => {
            members.retain(|name, value| names.contains(&name.as_str()) && is_words(value));
        }
        (Value::Object(members), Field::Any) => {
            let kind = members.get("@type").and_then(Value::as_str).unwrap_or_default();
            let kind = kind.strip_prefix("type.googleapis.com/").unwrap_or(kind);
            match TYPES.iter().find(|(name, _)| *name == kind) {
                Some((_, fields)) => keep_fields(members, fields),
                None => members.retain(|name, value| name == "@type" && value.is_string()),
            }
        }
        _ => return false,
    }
    true
}

/// Numbers and truths of a known message say nothing that is anybody's.
fn keep_fields(members: &mut Map<String, Value>, fields: Fields) {
    members.retain(|name, value| match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
        Value::String(_) if name == "@type" => true,
        value => {
            let field = fields.iter().find(|(known, _)| known == name);
            field.is_some_and(|(_, field)| is_kept(value, *field))
        }
    });
}

fn is_words(value: &Value) -> bool {
    match value {
        Value::String(_) => true,
        Value::Array(values) => values.iter().all(Value::is_string),
        _ => false,
    }
}

/// Beginnings of Envoy's statistics that count what Envoy does. Others have what callers say in their names, as a Telemetry
/// wants it, or are of plugins.
const STATISTICS: [&str; 14] = [
    "cluster",
    "cluster_manager",
    "control_plane",
    "dns",
    "filesystem",
    "http",
    "http1",
    "http2",
    "listener",
    "listener_manager",
    "main_thread",
    "server",
    "tcp",
    "workers",
];

/// The lines of `/stats` that count what Envoy does.
pub(super) fn known_statistics(text: &str) -> String {
    let is_known = |line: &&str| {
        let (first, rest) = line.split_once('.').unwrap_or_default();
        STATISTICS.contains(&first) && !rest.contains(".=.")
    };
    text.split_inclusive('\n').filter(is_known).collect()
}

/// The text without what looks like a private key or a token: what should not have been there.
pub(super) fn scrubbed(text: &str) -> String {
    let mut is_key = false;
    let mut scrubbed = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let begins = line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----");
        if begins || is_key {
            // Another may begin on the line where one ends.
            let [begin, end] = ["-----BEGIN ", "-----END "].map(|mark| line.rfind(mark));
            is_key = end.is_none_or(|end| begin > Some(end));
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
    use serde_json::json;

    use super::super::fields::CONFIG_DUMP;
    use super::*;

    /// Every kind of matcher of strings, by its fields (envoy.type.matcher.v3.StringMatcher, of headers also the old ones).
    fn matchers() -> Value {
        let kinds = ["exact", "prefix", "suffix", "contains"];
        let mut all: Vec<Value> = kinds.iter().map(|kind| json!({ *kind: "s3cret" })).collect();
        all.push(json!({ "safe_regex": { "regex": "s3cret" } }));
        all.push(json!({ "custom": { "name": "s3cret", "typed_config": { "@type": "a.B", "value": "s3cret" } } }));
        let headers = all
            .iter()
            .map(|matcher| json!({ "name": "x-key", "string_match": matcher }));
        let old = ["exact_match", "prefix_match", "suffix_match", "contains_match"];
        let old = old.iter().map(|kind| json!({ "name": "x-key", *kind: "s3cret" }));
        Value::Array(headers.chain(old).collect())
    }

    fn any(kind: &str, mut members: Value) -> Value {
        members["@type"] = format!("type.googleapis.com/{kind}").into();
        members
    }

    fn route() -> Value {
        let strings: Vec<Value> = matchers()
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it["string_match"].clone())
            .collect();
        json!({
            "match": {
                "prefix": "/shop?key=s3cret", "headers": matchers(), "query_parameters": matchers(),
                "safe_regex": { "regex": "/s3cret" }, "dynamic_metadata": strings, "cookies": matchers(),
            },
            "route": { "cluster": "outbound|80||cart", "prefix_rewrite": "/s3cret", "hash_policy": matchers() },
            "direct_response": { "status": 418, "body": { "inline_string": "s3cret" } },
            "redirect": { "path_redirect": "/a?key=s3cret", "host_redirect": "s3cret" },
            "request_headers_to_add": [{ "header": { "key": "authorization", "value": "Bearer s3cret" } }],
            "metadata": { "filter_metadata": { "istio": { "config": "/apis/x" }, "mine": { "name": "s3cret", "pin": 53 } } },
            "typed_per_filter_config": { "lua": any("type.googleapis.com/a.Lua", json!({ "name": "s3cret" })) },
            "decorator": { "operation": "s3cret" },
        })
    }

    fn dump() -> Value {
        let named = |name: &str, config: Value| json!({ "name": name, "typed_config": config });
        let rules = json!({ "action": "DENY", "policies": { "ns[shop]-policy[deny]-rule[0]": {
            "permissions": [{ "header": matchers() }, { "url_path": { "path": { "prefix": "s3cret" } } }],
            "principals": [{ "authenticated": { "principal_name": { "exact": "s3cret" } } }],
        }}});
        let http = any(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            json!({
                "stat_prefix": "inbound",
                "route_config": { "virtual_hosts": [{ "domains": ["cart"], "routes": [route()] }] },
                "tracing": {
                    "custom_tags": [{ "tag": "t", "literal": { "value": "s3cret" } }, { "request_header": { "name": "s3cret" } }],
                    "provider": { "name": "zipkin", "typed_config": { "@type": "a.Zipkin", "collector_endpoint": "s3cret" } },
                },
                "access_log": [{ "typed_config": { "path": "s3cret", "log_format": { "json_format": { "name": "s3cret" } } } }],
                "http_filters": [
                    named("rbac", any("envoy.extensions.filters.http.rbac.v3.RBAC", json!({ "rules": rules }))),
                    named("lua", any("envoy.extensions.filters.http.lua.v3.Lua", json!({ "inline_code": "s3cret" }))),
                    named("wasm", any("envoy.extensions.filters.http.wasm.v3.Wasm", json!({ "config": {
                        "name": "s3cret", "configuration": { "@type": "type.googleapis.com/google.protobuf.StringValue", "value": "s3cret" },
                    }}))),
                    named("typed", any("udpa.type.v1.TypedStruct", json!({ "value": { "name": "s3cret", "pin": 53 } }))),
                ],
            }),
        );
        let listener = any(
            "envoy.config.listener.v3.Listener",
            json!({
                "name": "virtualInbound", "address": { "socket_address": { "address": "0.0.0.0", "port_value": 15006 } },
                "filter_chains": [{ "filters": [named("hcm", http)] }],
            }),
        );
        let node = json!({ "id": "sidecar~10.0.0.1", "metadata": { "NAME": "vm", "name": "s3cret", "PIN": 53, "LABELS": { "a": "s3cret" } } });
        json!({ "configs": [
            any("envoy.admin.v3.ListenersConfigDump", json!({ "dynamic_listeners": [{ "active_state": { "listener": listener } }] })),
            any("envoy.admin.v3.BootstrapConfigDump", json!({ "bootstrap": { "node": node, "admin": { "path": "s3cret" } } })),
            any("envoy.admin.v3.SecretsConfigDump", json!({ "static_secrets": [{ "name": "default", "secret": any(
                "envoy.extensions.transport_sockets.tls.v3.Secret",
                json!({ "tls_certificate": { "private_key": { "inline_bytes": "s3cret" } }, "generic_secret": { "secret": "s3cret" } }),
            )}]})),
            any("a.of.tomorrow.Dump", json!({ "name": "s3cret" })),
        ]})
    }

    #[test]
    fn report_has_no_string_of_anybody_s_choice() {
        let kept = known_fields(&dump().to_string(), CONFIG_DUMP).unwrap();
        assert!(!kept.contains("s3cret") && !kept.contains("53"), "{kept}");
        for known in [
            "\"/shop\"",
            "\"x-key\"",
            "outbound|80||cart",
            "418",
            "/apis/x",
            "ns[shop]-policy[deny]-rule[0]",
            "DENY",
            "15006",
            "envoy.extensions.filters.http.lua.v3.Lua",
            "\"vm\"",
            "a.of.tomorrow.Dump",
        ] {
            assert!(kept.contains(known), "{known}: {kept}");
        }
        assert!(known_fields("no JSON", CONFIG_DUMP).is_err());
    }

    #[test]
    fn statistics_have_no_words_of_callers() {
        let text = "server.live: 1\nistiocustom.istio_requests_total.request_host.=.s3cret: 1\nwasm.s3cret: 1\n\
                    http.inbound.path.=.s3cret: 1\ncluster.outbound|80||cart.upstream_cx_total: 2\n";
        let kept = known_statistics(text);
        assert_eq!(kept, "server.live: 1\ncluster.outbound|80||cart.upstream_cx_total: 2\n");
    }

    #[test]
    fn keys_and_tokens_are_cut_out_of_any_text() {
        let text = "a\n  -----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nb eyJhbGciOi.eyJzdWIi.c2ln, eyJ and c\n";
        assert_eq!(scrubbed(text), "a\n(cut)\nb (cut), eyJ and c\n");
        assert_eq!(scrubbed("-----BEGIN PRIVATE KEY-----\nMHc\n"), "(cut)");
        let glued = "-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY----------BEGIN PRIVATE KEY-----\nMHd\n-----END PRIVATE KEY-----\na\n";
        assert_eq!(scrubbed(glued), "(cut)\na\n");
        let one_line = r#""key": "-----BEGIN PRIVATE KEY-----\nMHc\n-----END PRIVATE KEY-----\n"#;
        assert!(!scrubbed(one_line).contains("MHc"));
    }
}
