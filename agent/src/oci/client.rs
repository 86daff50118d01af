//! One image, asked for at its registry.

use std::env::consts::ARCH;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest as hash};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::{ACCEPT, AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Response, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::manifest::{self, Layer, Manifest};
use super::reference::{Reference, digest, hex_of, is_loopback};
use crate::docker::{Credentials, Registries};
use crate::facts::Secret;
use crate::host::{Host, Read, Staged};
use crate::web::{Client, Patience, Trust};

/// The longest wait for a connection, and for each piece of an answer.
const TIMEOUTS: Patience = Patience {
    connect: Duration::from_secs(10),
    exchange: Duration::from_secs(30),
};
/// The longest answer of a token server, in bytes.
const MAX_TOKEN_BYTES: usize = 1 << 20;
/// The longest file of roots, in bytes: one with every certificate authority of the world is a quarter of it.
const MAX_ROOTS_BYTES: usize = 1 << 20;

/// The way to registries.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    pub(crate) host: Host,
    /// A config.json of Docker's; absent: on Google the VM's identity, elsewhere none.
    pub(crate) registry_config: Option<PathBuf>,
    /// PEM certificates that registries are verified with; absent: those that the VM trusts.
    pub(crate) ca_file: Option<PathBuf>,
}

/// An image at its registry. Requests carry credentials only once the registry has asked for some.
#[derive(Debug)]
pub(crate) struct Image {
    client: Client,
    reference: Reference,
    credentials: Option<Credentials>,
    authorization: Option<Secret>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: Secret,
}

impl Image {
    /// Asks nobody yet but, where they are configured so, for credentials.
    pub(crate) async fn open(access: &Access, image: &str) -> Result<Self> {
        let reference = Reference::parse(image)?;
        let registries = Registries::new(&access.host, access.registry_config.as_deref());
        Ok(Self {
            client: Client::roaming(trust(access, &reference)?, TIMEOUTS)?,
            credentials: registries.credentials(image).await?,
            reference,
            authorization: None,
        })
    }

    /// The digest of what the reference leads to now, `sha256:…`.
    pub(crate) async fn digest(&mut self) -> Result<String> {
        let version = self.reference.version.clone();
        let text = self.manifest(&version).await?;
        Manifest::parse(&text, ARCH).context("what the registry has by that name is of no use")?;
        Ok(digest(&sha256(&text)))
    }

    /// The layers of the image for this kind of machine, the lowest first.
    pub(crate) async fn layers(&mut self) -> Result<Vec<Layer>> {
        let version = self.reference.version.clone();
        let mut parsed = Manifest::parse(&self.manifest(&version).await?, ARCH)?;
        if let Manifest::Index(digest) = parsed {
            parsed = Manifest::parse(&self.manifest(&digest).await?, ARCH)?;
        }
        match parsed {
            Manifest::Image(layers) => Ok(layers),
            Manifest::Index(_) => bail!("its manifest leads to another that is no image"),
        }
    }

    /// Saves a layer as it comes, and tells how many bytes are here. Fails when they are not what the manifest says.
    pub(crate) async fn save(&mut self, layer: &Layer, into: &mut Staged, mut tell: impl FnMut(u64)) -> Result<()> {
        let url = format!("{}/blobs/{}", self.reference.url(), layer.digest);
        let mut response = self.ask(&url).await?;
        let mut here = 0;
        while let Some(piece) = self.client.piece(&mut response).await? {
            here += piece.len() as u64;
            ensure!(
                here <= layer.size,
                "layer {} is longer than its manifest says",
                layer.digest
            );
            into.write_all(&piece)?;
            tell(here);
        }
        ensure!(
            into.sha256() == hex_of(&layer.digest)?,
            "layer {} is not what its digest says ({here} of {} bytes came)",
            layer.digest,
            layer.size
        );
        Ok(())
    }

    /// A manifest by its tag or digest; one by digest is what that says.
    async fn manifest(&mut self, version: &str) -> Result<String> {
        let url = format!("{}/manifests/{version}", self.reference.url());
        let response = self.ask(&url).await?;
        let text = self.text(response, manifest::MAX_BYTES).await?;
        if let Ok(hex) = hex_of(version) {
            ensure!(
                sha256(&text) == hex,
                "the registry gave another manifest than {version}"
            );
        }
        Ok(text)
    }

    /// Asks the registry, and logs in when it wants that.
    async fn ask(&mut self, url: &str) -> Result<Response> {
        let mut response = self.send(url).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let mut challenges = response.headers().get_all(WWW_AUTHENTICATE).into_iter();
            let challenge = challenges.find_map(|it| Challenge::parse(it.to_str().ok()?));
            let challenge = challenge.context("the registry wants a login of a kind that is not known here")?;
            self.authorization = Some(self.log_in(challenge).await?);
            response = self.send(url).await?;
        }
        let Reference {
            registry,
            repository,
            version,
        } = &self.reference;
        match response.status() {
            status if status.is_success() => Ok(response),
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                bail!(
                    "{registry} answers {status} for {repository}: it wants a login, or another one; name a config.json \
                     of Docker's in envoy.registry_config"
                )
            }
            StatusCode::NOT_FOUND => {
                bail!("{registry} has no {version} of {repository}: check the image's name, tag or digest")
            }
            status => bail!("{registry} answers {status} for {repository}"),
        }
    }

    async fn send(&self, url: &str) -> Result<Response> {
        let mut request = self.client.get(url).header(ACCEPT, manifest::ACCEPTED);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.expose());
        }
        self.client.start(request).await
    }

    /// The header that answers a challenge.
    async fn log_in(&self, challenge: Challenge) -> Result<Secret> {
        let registry = &self.reference.registry;
        let basic = self.credentials.as_ref().map(basic).transpose()?;
        let (realm, service) = match challenge {
            Challenge::Basic => {
                return basic.with_context(|| {
                    format!("{registry} wants a login: name a config.json of Docker's in envoy.registry_config")
                });
            }
            Challenge::Bearer { realm, service } => (realm, service),
        };
        let mut url = Url::parse(&realm).map_err(|_| anyhow!("{registry} names a token server that is no URL"))?;
        // Over plain HTTP a password goes to this VM itself, or not at all.
        let is_fit = match self.reference.is_local() {
            true => url.host_str().is_some_and(is_loopback),
            false => url.scheme() == "https",
        };
        ensure!(
            is_fit,
            "{registry} has its tokens from {url}, which is not asked without TLS"
        );
        let scope = format!("repository:{}:pull", self.reference.repository);
        url.query_pairs_mut()
            .append_pair("scope", &scope)
            .extend_pairs(service.map(|service| ("service", service)));
        let mut request = self.client.get(url.as_str());
        if let Some(basic) = &basic {
            request = request.header(AUTHORIZATION, basic.expose());
        }
        let answer = self.client.exchange(request, MAX_TOKEN_BYTES).await?;
        ensure!(
            answer.status.is_success(),
            "{registry} gives no token ({}): it wants a login, or another one; name a config.json of Docker's in \
             envoy.registry_config",
            answer.status
        );
        bearer(&answer.text).with_context(|| format!("the token server of {registry} gives no token"))
    }

    async fn text(&self, mut response: Response, max: usize) -> Result<String> {
        let mut bytes = Vec::new();
        while let Some(piece) = self.client.piece(&mut response).await? {
            ensure!(
                bytes.len() + piece.len() <= max,
                "the answer is longer than {max} bytes"
            );
            bytes.extend_from_slice(&piece);
        }
        String::from_utf8(bytes).context("the answer is no text")
    }
}

/// The header with the token of a token server's answer.
pub(super) fn bearer(answer: &str) -> Option<Secret> {
    let Token { token } = serde_json::from_str(answer).ok()?;
    let is_token = token.expose().bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then(|| Secret::new(format!("Bearer {}", token.expose())))
}

fn basic(credentials: &Credentials) -> Result<Secret> {
    let (user, password) = credentials.name_and_password().context(
        "the registry's credentials are an identity token, which only Docker can use: `docker login` with a name and a password",
    )?;
    let pair = Secret::new(format!("{user}:{password}"));
    Ok(Secret::new(format!("Basic {}", STANDARD.encode(pair.expose()))))
}

fn trust(access: &Access, reference: &Reference) -> Result<Trust> {
    if reference.is_local() {
        return Ok(Trust::Plain);
    }
    let Some(path) = &access.ca_file else {
        return Ok(Trust::System);
    };
    let pem = access.host.read(path, Read::max(MAX_ROOTS_BYTES).following_links());
    let pem = pem.context("failed to read envoy.ca_file")?;
    Ok(Trust::Roots {
        pem: pem.with_context(|| format!("envoy.ca_file, {}, is missing", path.display()))?,
        place: format!("envoy.ca_file, {}", path.display()),
    })
}

fn sha256(text: &str) -> String {
    hex::encode(hash(&SHA256, text.as_bytes()))
}
