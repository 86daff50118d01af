//! HTTP with servers of others: whom a client trusts, how long it waits, how much it reads, what a failure means, and
//! what time it is there. Used by `google` and by the sources of `join`; knows nothing of what is asked.
//!
//! Beside that: one exchange on this VM, with Envoy, with the application and with a running agent.

mod clock;
mod critical;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod local;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use reqwest::redirect::{Action, Attempt, Policy};
use reqwest::{Certificate, Identity, RequestBuilder, Response};
use tokio::time::timeout;

pub(crate) use clock::{ClockCheck, wrong_clock};
pub(crate) use critical::unknown_critical;
pub(crate) use failure::{causes, untimely};
pub(crate) use local::{exchange, fetch};

pub(crate) const USER_AGENT: &str = concat!("istio-vm-agent/", env!("CARGO_PKG_VERSION"));
/// Hops that a server may send a request round itself.
const MAX_REDIRECTS: usize = 3;

/// Trust of a client in its server.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// Plain HTTP, never through a proxy. Loads no root certificates: a VM without any has all it needs.
    Plain,
    /// Roots that the VM trusts: its ca-certificates, or the file that SSL_CERT_FILE names.
    System,
    /// Roots of the server's own, and no others.
    Roots {
        /// PEM, one or more certificates.
        pem: String,
        /// Where they came from, for messages: a file, a key, an API.
        place: String,
    },
}

/// Times that a client waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a connection, TLS included.
    pub(crate) connect: Duration,
    /// For a whole exchange.
    pub(crate) exchange: Duration,
}

impl Default for Patience {
    /// For a server somewhere on the network.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            exchange: Duration::from_secs(15),
        }
    }
}

/// A client of one server. Cheap to clone; connections are shared.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    inner: reqwest::Client,
    trust: Trust,
    patience: Patience,
}

/// A whole answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Client {
    /// A client that shows no certificate.
    pub(crate) fn new(trust: Trust, patience: Patience) -> Result<Self> {
        Self::with_identity(trust, patience, None)
    }

    /// A client that shows `identity`. Fails when the roots can't be used.
    pub(crate) fn with_identity(trust: Trust, patience: Patience, identity: Option<Identity>) -> Result<Self> {
        Self::build(trust, patience, identity, Policy::custom(within_the_server))
    }

    /// A client whom a server may send on to any other, as release pages and registries do: for requests that carry nothing
    /// but `authorization`, which is shown to that server alone (reqwest).
    pub(crate) fn roaming(trust: Trust, patience: Patience) -> Result<Self> {
        Self::build(trust, patience, None, Policy::limited(MAX_REDIRECTS))
    }

    fn build(trust: Trust, patience: Patience, identity: Option<Identity>, redirects: Policy) -> Result<Self> {
        // reqwest takes the process's provider; that there is one already is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(patience.connect)
            .redirect(redirects);
        let mut builder = match &trust {
            Trust::Plain => builder.no_proxy().tls_certs_only([]),
            Trust::System => builder.https_only(true),
            Trust::Roots { pem, place } => builder.https_only(true).tls_certs_only(roots(pem, place)?),
        };
        if let Some(identity) = identity {
            builder = builder.identity(identity);
        }
        let inner = builder.build().with_context(|| match &trust {
            Trust::System => "failed to load this VM's root certificates: install ca-certificates, or set ca_file",
            Trust::Plain | Trust::Roots { .. } => "failed to set up the HTTP client",
        })?;
        Ok(Self { inner, trust, patience })
    }

    /// A request to be added to, for [`Client::exchange`] or [`Client::start`].
    pub(crate) fn get(&self, url: &str) -> RequestBuilder {
        self.inner.get(url)
    }

    /// As [`Client::get`].
    pub(crate) fn head(&self, url: &str) -> RequestBuilder {
        self.inner.head(url)
    }

    /// As [`Client::get`].
    pub(crate) fn post(&self, url: &str) -> RequestBuilder {
        self.inner.post(url)
    }

    /// Sends a request and reads the whole answer: at most `max` bytes of UTF-8. An error says what it was about
    /// (never with the query), what went wrong and, where that is known, what to do.
    pub(crate) async fn exchange(&self, request: RequestBuilder, max: usize) -> Result<Answer> {
        let (place, request) = self.prepared(request)?;
        let answer = async {
            let response = self
                .inner
                .execute(request)
                .await
                .map_err(|error| self.explained(error))?;
            let (status, headers) = (response.status(), response.headers().clone());
            let text = self.read(response, max).await?;
            anyhow::Ok(Answer { status, headers, text })
        };
        let late = || {
            anyhow!(
                "no whole answer within {:?}: check routes and firewalls",
                self.patience.exchange
            )
        };
        let answer = timeout(self.patience.exchange, answer).await;
        answer.map_err(|_| late()).flatten().context(place)
    }

    /// Sends a request whose answer has no end, and waits for its head only.
    pub(crate) async fn start(&self, request: RequestBuilder) -> Result<Response> {
        let (place, request) = self.prepared(request)?;
        let late = || {
            anyhow!(
                "no answer within {:?}: check routes and firewalls",
                self.patience.exchange
            )
        };
        let sent = timeout(self.patience.exchange, self.inner.execute(request)).await;
        sent.map_err(|_| late())
            .and_then(|sent| sent.map_err(|error| self.explained(error)))
            .context(place)
    }

    /// The next piece of an answer that [`Client::start`] began; `None` at its end. Waits as long as for an exchange.
    pub(crate) async fn piece(&self, response: &mut Response) -> Result<Option<Bytes>> {
        match timeout(self.patience.exchange, response.chunk()).await {
            Ok(piece) => piece.map_err(|error| self.explained(error)),
            Err(_) => Err(anyhow!("nothing more came within {:?}", self.patience.exchange)),
        }
    }

    fn prepared(&self, request: RequestBuilder) -> Result<(String, reqwest::Request)> {
        let request = request.build().context("failed to make a request")?;
        let mut shown = request.url().clone();
        shown.set_query(None);
        Ok((format!("failed to {} {shown}", request.method()), request))
    }

    async fn read(&self, mut response: Response, max: usize) -> Result<String> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.explained(error))? {
            if bytes.len() + chunk.len() > max {
                bail!("the answer is longer than {max} bytes");
            }
            bytes.extend_from_slice(&chunk);
        }
        String::from_utf8(bytes).context("the answer is no text")
    }

    fn explained(&self, error: reqwest::Error) -> anyhow::Error {
        failure::explained(error, &self.trust, SystemTime::now())
    }
}

fn roots(pem: &str, place: &str) -> Result<Vec<Certificate>> {
    let roots = Certificate::from_pem_bundle(pem.as_bytes()).ok();
    roots
        .filter(|roots| !roots.is_empty())
        .with_context(|| format!("{place}: holds no certificate in PEM"))
}

/// Refuses a redirect to another server, which would learn what the request carries.
fn within_the_server(attempt: Attempt<'_>) -> Action {
    let next = attempt.url().origin();
    if attempt.previous().iter().any(|url| url.origin() != next) {
        let next = next.ascii_serialization();
        return attempt.error(format!(
            "it redirects to {next}, and only redirects within itself are followed"
        ));
    }
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("it redirects in circles");
    }
    attempt.follow()
}
