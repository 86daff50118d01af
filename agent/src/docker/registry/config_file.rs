//! Docker's config.json, and the answers of credential helpers. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// The key that Docker Hub has in such a file (docker/cli, cli/config/types).
const DOCKER_HUB: &str = "index.docker.io";
/// The name under which helpers have Docker Hub (docker/cli, registry.IndexServer).
const DOCKER_HUB_SERVER: &str = "https://index.docker.io/v1/";
/// The name under which a helper gives an identity token (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";

/// The parts of the file that are about registries.
#[derive(Deserialize)]
pub(in crate::docker) struct ConfigFile {
    #[serde(default)]
    auths: BTreeMap<String, Auth>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
}

#[derive(Deserialize)]
struct Auth {
    /// `user:password` in base64.
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
}

/// Where credentials are.
pub(super) enum Source {
    Known(DockerCredentials),
    /// In what `docker-credential-NAME` keeps.
    Helper(String),
}

impl ConfigFile {
    /// Reads the file; the error says which entry is wrong, and quotes nothing of it.
    pub(in crate::docker) fn parse(text: &str) -> Result<Self, String> {
        let file: Self = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("is no config.json of Docker's (line {line}, column {column})")
        })?;
        for (registry, auth) in &file.auths {
            if !auth.auth.is_empty() && decoded(&auth.auth).is_none() {
                return Err(format!("auths.{registry}: auth is no user:password in base64"));
            }
        }
        let mut helpers = file.helpers.values().chain(&file.store);
        match helpers.find(|name| !is_helper(name)) {
            Some(name) => Err(format!("{name:?} is no name of a credential helper")),
            None => Ok(file),
        }
    }

    /// The credentials for `registry`, a `host[:port]`: as Docker does, its own helper first, then the store of all, then
    /// what the file itself has.
    pub(super) fn source(&self, registry: &str) -> Option<Source> {
        if let Some((_, name)) = self.helpers.iter().find(|(key, _)| is_of(key, registry)) {
            return Some(Source::Helper(name.clone()));
        }
        let (_, auth) = self.auths.iter().find(|(key, _)| is_of(key, registry))?;
        match &self.store {
            // Docker leaves the entry, and what it is about in the store.
            Some(name) if auth.is_empty() => Some(Source::Helper(name.clone())),
            _ => auth.credentials().map(Source::Known),
        }
    }
}

impl Auth {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.password, &self.identity_token]
            .iter()
            .all(|part| part.is_empty())
    }

    fn credentials(&self) -> Option<DockerCredentials> {
        let (username, password) = match decoded(&self.auth) {
            Some(pair) => pair,
            None => (self.username.clone(), self.password.clone()),
        };
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        (!self.is_empty()).then(|| DockerCredentials {
            username: some(&username),
            password: some(&password),
            identitytoken: some(&self.identity_token),
            ..DockerCredentials::default()
        })
    }
}

/// A user and a password out of base64. Docker ends some with a NUL.
fn decoded(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// The credentials that a helper prints; `None` when it prints something else.
pub(in crate::docker) fn helper_answer(text: &str) -> Option<DockerCredentials> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let Answer { username, secret } = serde_json::from_str(text).ok()?;
    let mut credentials = DockerCredentials::default();
    match username.as_str() {
        TOKEN_USER => credentials.identitytoken = Some(secret),
        _ => (credentials.username, credentials.password) = (Some(username), Some(secret)),
    }
    Some(credentials)
}

/// The name by which a helper knows a registry.
pub(super) fn server(registry: &str) -> &str {
    match registry {
        "docker.io" => DOCKER_HUB_SERVER,
        other => other,
    }
}

/// True for a program's name that names no other place.
fn is_helper(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !name.is_empty() && name.chars().all(is_plain)
}

/// True when an entry's key, which may be a URL, is about this registry.
fn is_of(key: &str, registry: &str) -> bool {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    host == registry || (host == DOCKER_HUB && registry == "docker.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_is_found_by_every_way_to_write_a_registry() {
        let text = r#"{
            "auths": { "https://index.docker.io/v1/": { "auth": "YTpi" }, "r.example:5000": { "username": "c", "password": "d" },
                       "https://s.example": {}, "t.example": { "identitytoken": "e" } },
            "credHelpers": { "europe-west1-docker.pkg.dev": "gcloud" }, "credsStore": "secretservice",
            "HttpHeaders": { "a": "b" } }"#;
        let file = ConfigFile::parse(text).unwrap();
        let told = |registry: &str| match file.source(registry) {
            Some(Source::Known(known)) => {
                let parts = [known.username, known.password, known.identitytoken];
                parts.map(Option::unwrap_or_default).join(",")
            }
            Some(Source::Helper(name)) => format!("helper {name}"),
            None => "none".to_owned(),
        };
        assert_eq!(told("docker.io"), "a,b,");
        assert_eq!(told("r.example:5000"), "c,d,");
        assert_eq!(told("s.example"), "helper secretservice");
        assert_eq!(told("t.example"), ",,e");
        assert_eq!(told("europe-west1-docker.pkg.dev"), "helper gcloud");
        assert_eq!(
            (told("r.example"), told("xs.example")),
            ("none".to_owned(), "none".to_owned())
        );
    }

    #[test]
    fn helper_s_name_is_no_path() {
        for name in ["../sh", "a/b", "", "a b"] {
            let text = format!(r#"{{ "credsStore": {name:?} }}"#);
            assert!(ConfigFile::parse(&text).is_err(), "{name:?}");
        }
    }

    #[test]
    fn helper_gives_a_password_or_a_token() {
        let password = helper_answer(r#"{"ServerURL":"r","Username":"a","Secret":"b"}"#).unwrap();
        assert_eq!(
            (password.username.as_deref(), password.password.as_deref()),
            (Some("a"), Some("b"))
        );
        let token = helper_answer(r#"{"ServerURL":"r","Username":"<token>","Secret":"b"}"#).unwrap();
        assert_eq!((token.username, token.identitytoken.as_deref()), (None, Some("b")));
        assert!(helper_answer("credentials not found in native keychain").is_none());
    }
}
