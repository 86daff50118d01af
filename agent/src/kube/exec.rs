//! A kubeconfig's credential plugin: a program that prints a token (client.authentication.k8s.io).

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use serde::Deserialize;
use serde_json::json;

use super::bearer::Bearer;
use crate::host::{Host, Invocation};

/// Longest run of a plugin, which may ask its cloud and then waits for a network.
const DEADLINE: Duration = Duration::from_secs(30);
/// A token is not used so shortly before its end.
const MARGIN: Duration = Duration::from_secs(60);

/// `exec` of a kubeconfig's user.
#[derive(Debug)]
pub(crate) struct Plugin {
    call: Invocation,
    host: Host,
    /// The last token, and its end when it has one.
    kept: Mutex<Option<(Bearer, Option<SystemTime>)>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Exec {
    command: String,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    api_version: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct Variable {
    name: String,
    value: String,
}

#[derive(Deserialize)]
struct Credential {
    status: Option<CredentialStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CredentialStatus {
    token: Option<String>,
    expiration_timestamp: Option<String>,
}

impl Plugin {
    /// `command` is the program's path, or its name.
    pub(super) fn new(exec: Exec, command: String, host: &Host) -> Self {
        let version = exec.api_version.as_deref();
        let version = version.unwrap_or("client.authentication.k8s.io/v1");
        let info = json!({"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": false}});
        let mut env: Vec<(String, String)> = exec.env.into_iter().flatten().map(|v| (v.name, v.value)).collect();
        env.push(("KUBERNETES_EXEC_INFO".to_owned(), info.to_string()));
        let argv = std::iter::once(command).chain(exec.args.into_iter().flatten());
        Self {
            call: Invocation::new(argv).with_env(env).within(DEADLINE),
            host: host.clone(),
            kept: Mutex::new(None),
        }
    }

    /// The program.
    pub(super) fn name(&self) -> &str {
        self.call.argv.first().map_or("", String::as_str)
    }

    /// The token that it gave last, or a new one.
    pub(super) async fn bearer(&self) -> Result<Bearer> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((bearer, end)) = kept
            && end.is_none_or(|end| SystemTime::now() + MARGIN < end)
        {
            return Ok(bearer);
        }
        let call = self.call.clone();
        let output = self
            .host
            .blocking(move |host| Ok(host.run(&call)?))
            .await
            .with_context(|| format!("the credential plugin {} of the kubeconfig failed", self.name()))?;
        let (bearer, end) = parse(&output)
            .with_context(|| format!("the credential plugin {} printed no usable ExecCredential", self.name()))?;
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some((bearer.clone(), end));
        Ok(bearer)
    }

    /// The next [`Plugin::bearer`] is a new one.
    pub(super) fn forget(&self) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Exec {
    pub(super) fn command(&self) -> &str {
        &self.command
    }
}

pub(super) fn parse(output: &str) -> Result<(Bearer, Option<SystemTime>)> {
    // serde's error would quote what it didn't expect, which may be a secret.
    let credential: Credential = serde_json::from_str(output).map_err(|_| anyhow!("it is not one in JSON"))?;
    let status = credential.status.context("it has no status")?;
    let token = status
        .token
        .context("it has no token; a plugin that gives a client certificate is not supported")?;
    let end = status.expiration_timestamp.as_deref();
    let end = end.map(humantime::parse_rfc3339).transpose();
    Ok((
        Bearer::new("status.token", &token)?,
        end.context("expirationTimestamp")?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    fn plugin(script: &str, env: serde_json::Value) -> Plugin {
        let exec = json!({"command": "sh", "args": ["-c", script], "env": env});
        let exec: Exec = serde_json::from_value(exec).unwrap();
        Plugin::new(exec, "sh".to_owned(), &Host::new("/", System))
    }

    #[tokio::test]
    async fn token_is_asked_for_with_the_environment_and_kept_until_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let runs = directory.path().join("runs");
        let script = format!(
            r#"echo "$KUBERNETES_EXEC_INFO" >> {0}; printf '{{"status":{{"token":"%s","expirationTimestamp":"%s"}}}}' "$A" "$END""#,
            runs.display()
        );
        for (end, times) in [("2999-01-01T00:00:00Z", 1), ("2020-01-01T00:00:00Z", 2)] {
            let plugin = plugin(
                &script,
                json!([{"name": "A", "value": "secret"}, {"name": "END", "value": end}]),
            );
            for _ in 0..2 {
                assert_eq!(plugin.bearer().await.unwrap().expose(), "secret");
            }
            let seen = std::fs::read_to_string(&runs).unwrap();
            assert_eq!(seen.lines().count(), times, "{seen}");
            assert!(seen.contains(r#""kind":"ExecCredential""#), "{seen}");
            assert!(!format!("{plugin:?}").contains("secret"), "{plugin:?}");
            plugin.forget();
            plugin.bearer().await.unwrap();
            assert_eq!(std::fs::read_to_string(&runs).unwrap().lines().count(), times + 1);
            std::fs::remove_file(&runs).unwrap();
        }
    }

    #[tokio::test]
    async fn plugin_that_gives_nothing_is_named_and_never_quoted() {
        let cases = [
            (
                "echo sorry >&2; exit 3",
                "the credential plugin sh of the kubeconfig failed",
            ),
            ("echo sorry >&2; exit 3", "sorry"),
            ("echo secret", "printed no usable ExecCredential: it is not one in JSON"),
            ("echo '{}'", "it has no status"),
            (
                r#"echo '{"status":{"clientCertificateData":"secret"}}'"#,
                "client certificate is not supported",
            ),
            (r#"echo '{"status":{"token":"secret token"}}'"#, "holds no bearer token"),
        ];
        for (script, wanted) in cases {
            let error = format!("{:#}", plugin(script, json!([])).bearer().await.unwrap_err());
            assert!(error.contains(wanted), "{script}: {error}");
            let said = error.replace(script, "");
            assert!(!said.contains("secret"), "{script}: {error}");
        }
    }
}
