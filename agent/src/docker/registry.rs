//! Who the agent is to a registry: Docker's own config.json, programs that it names, and on Google the VM's identity.

pub(super) mod config_file;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bollard::auth::DockerCredentials;

pub(in crate::docker) use config_file::ConfigFile;
use config_file::{Source, helper_answer, server};

use super::image::ImageRef;
use crate::google::{self, Metadata};
use crate::host::{Host, Invocation, Read, blocking};

/// The longest config.json that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Name of whoever has an OAuth access token (cloud.google.com/artifact-registry/docs/docker/authentication).
const GOOGLE_USER: &str = "oauth2accesstoken";

/// The ways to credentials.
#[derive(Clone, Debug)]
pub(crate) struct Registries {
    host: Host,
    /// A config.json of Docker's; `None`: none is configured.
    config: Option<PathBuf>,
    /// The metadata server's `http://host[:port]`; `None` where there is none.
    metadata: Option<String>,
}

/// Credentials for a registry. Never printed.
pub(crate) struct Credentials(DockerCredentials);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

impl Credentials {
    /// The name and the password; `None` for an identity token.
    pub(crate) fn name_and_password(&self) -> Option<(&str, &str)> {
        Some((self.0.username.as_deref()?, self.0.password.as_deref()?))
    }

    pub(super) fn into_inner(self) -> DockerCredentials {
        self.0
    }

    fn of(username: &str, password: &str) -> Self {
        Self(DockerCredentials {
            username: Some(username.to_owned()),
            password: Some(password.to_owned()),
            ..DockerCredentials::default()
        })
    }
}

impl Registries {
    /// The registries as this VM knows them, with the config.json at `config`.
    pub(crate) fn new(host: &Host, config: Option<&Path>) -> Self {
        Self {
            host: host.clone(),
            config: config.map(Path::to_owned),
            metadata: google::metadata_host(host).map(|host| format!("http://{host}")),
        }
    }

    /// The credentials for an image's registry, as they are now; `None` where it is asked without.
    ///
    /// # Errors
    /// When those that are configured can't be had.
    pub(crate) async fn credentials(&self, image: &str) -> Result<Option<Credentials>> {
        let registry = ImageRef::parse(image).registry;
        if let Some(path) = &self.config
            && let Some(found) = self.configured(path, registry).await?
        {
            return Ok(Some(found));
        }
        match &self.metadata {
            Some(metadata) if is_googles(registry) => {
                let token = Metadata::at(metadata)?.access_token().await;
                let token = token.with_context(|| format!("failed to get an access token for {registry}"))?;
                Ok(Some(Credentials::of(GOOGLE_USER, token.expose())))
            }
            _ => Ok(None),
        }
    }

    /// Looks whether the config.json that is configured can be read. Blocks.
    ///
    /// # Errors
    /// When it is not there, others may open it, or it is none.
    pub(crate) fn expect_readable(&self) -> Result<()> {
        self.config.as_deref().map_or(Ok(()), |path| self.read(path).map(drop))
    }

    fn read(&self, path: &Path) -> Result<ConfigFile> {
        let text = self.host.read(path, Read::max(MAX_BYTES).following_links().private())?;
        let text = text.with_context(|| format!("{} is not there", path.display()))?;
        ConfigFile::parse(&text).map_err(|problem| anyhow::anyhow!("{}: {problem}", path.display()))
    }

    async fn configured(&self, path: &Path, registry: &str) -> Result<Option<Credentials>> {
        match self.read(path)?.source(registry) {
            Some(Source::Known(credentials)) => Ok(Some(Credentials(credentials))),
            Some(Source::Helper(name)) => self.ask_helper(name, registry).await.map(Some),
            None => Ok(None),
        }
    }

    /// Asks a credential helper (github.com/docker/docker-credential-helpers): the registry in, JSON out.
    async fn ask_helper(&self, name: String, registry: &str) -> Result<Credentials> {
        let call =
            Invocation::new([format!("docker-credential-{name}"), "get".to_owned()]).with_stdin(server(registry));
        let host = self.host.clone();
        // Its stdout is a secret, and in no error.
        let answer = blocking(move || Ok(host.run(&call)?))
            .await
            .context("failed to ask for a registry's credentials")?;
        let found = helper_answer(&answer);
        found
            .map(Credentials)
            .with_context(|| format!("docker-credential-{name} gave no credentials for {registry}"))
    }
}

/// True for Artifact Registry and Container Registry.
fn is_googles(registry: &str) -> bool {
    registry == "gcr.io" || registry.ends_with(".gcr.io") || registry.ends_with("-docker.pkg.dev")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::google::fixtures::MetadataServer;
    use crate::host::System;
    use crate::host::fixtures::{Answers, failed};

    const AUTH: &str = r#"{ "auths": { "registry.example:5000": { "auth": "bWU6cGFzczp3b3Jk" } } }"#;

    fn vm(config: &str, mode: u32) -> (tempfile::TempDir, Registries) {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let registries = Registries {
            host: Host::new(root.path(), System),
            config: Some("/config.json".into()),
            metadata: None,
        };
        (root, registries)
    }

    fn name_and_password(found: Option<Credentials>) -> Option<(String, String)> {
        let found = found?.into_inner();
        Some((found.username?, found.password?))
    }

    #[tokio::test]
    async fn registry_is_shown_what_dockers_own_file_has_for_it() {
        let (_root, registries) = vm(AUTH, 0o600);
        let found = registries.credentials("registry.example:5000/web:1").await.unwrap();
        assert_eq!(format!("{found:?}"), "Some(redacted)");
        let pair = ("me".to_owned(), "pass:word".to_owned());
        assert_eq!(name_and_password(found), Some(pair));
        assert!(
            registries
                .credentials("elsewhere.example/web:1")
                .await
                .unwrap()
                .is_none()
        );

        let (_root, exposed) = vm(AUTH, 0o644);
        let error = exposed.credentials("registry.example:5000/web:1").await.unwrap_err();
        assert!(format!("{error:#}").starts_with("/config.json: "), "{error:#}");
        let (_root, broken) = vm("{ \"auths\": { \"a\": { \"auth\": \"hunter2\" } } }", 0o600);
        let error = format!("{:#}", broken.credentials("a/web:1").await.unwrap_err());
        assert!(error.contains("auths.a") && !error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn helper_is_asked_for_docker_hub_by_the_name_that_docker_gives_it() {
        let config = r#"{ "auths": { "https://index.docker.io/v1/": {} }, "credsStore": "pass" }"#;
        let (root, mut registries) = vm(config, 0o600);
        let helper = Answers(|call: &Invocation| {
            assert_eq!(call.to_string(), "docker-credential-pass get");
            match call.stdin.as_str() {
                "https://index.docker.io/v1/" => Ok(r#"{ "Username": "me", "Secret": "password" }"#.to_owned()),
                _ => failed(call, "credentials not found in native keychain"),
            }
        });
        registries.host = Host::new(root.path(), helper);
        let found = registries.credentials("team/web:1").await.unwrap();
        assert_eq!(name_and_password(found), Some(("me".to_owned(), "password".to_owned())));
    }

    #[tokio::test]
    async fn googles_registries_are_shown_the_vms_identity() {
        let server = MetadataServer::start().await;
        let (_root, mut registries) = vm(AUTH, 0o600);
        registries.metadata = Some(server.server.url.clone());
        let found = registries
            .credentials("europe-west1-docker.pkg.dev/p/r/web:1")
            .await
            .unwrap();
        assert_eq!(name_and_password(found).unwrap().0, GOOGLE_USER);
        for image in ["docker.io/web:1", "docker.pkg.dev.example/web:1", "notgcr.io/web:1"] {
            assert!(registries.credentials(image).await.unwrap().is_none(), "{image}");
        }
        registries.metadata = None;
        assert!(registries.credentials("eu.gcr.io/p/web:1").await.unwrap().is_none());
    }
}
