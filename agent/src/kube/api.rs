//! Calls to the API server: objects by name, their changes, and tokens. Bounded in time and size.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use http::StatusCode;
use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::access::{Access, Credential};
use super::bearer::Bearer;
use super::objects::TokenRequest;
use super::refusal::Refusal;
use super::resource::{Resource, Verb};
use super::typed::typed;
use crate::web::{Answer, Client, ClockCheck, Patience};

/// etcd takes no larger object.
const MAX_BYTES: usize = 2 << 20;
/// Life asked of a token; it is used at once, and Kubernetes gives no less than ten minutes.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
/// A watch that ends sooner with nothing said was none: asked for again at once, it would be without end.
const SHORTEST_WATCH: Duration = Duration::from_secs(1);
/// Time that a watch may take longer than it was asked to.
const OVERTIME: Duration = Duration::from_secs(30);

/// One API server.
#[derive(Debug)]
pub(crate) struct Api {
    access: Access,
    client: Client,
    clock: ClockCheck,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server said no.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// There was no answer that could be used.
    #[error(transparent)]
    Unanswered(#[from] anyhow::Error),
}

impl Api {
    pub(crate) fn new(access: Access) -> Result<Self> {
        let client = Client::with_identity(access.trust.clone(), Patience::default(), access.credential.identity())?;
        Ok(Self {
            access,
            client,
            clock: ClockCheck::default(),
        })
    }

    pub(crate) fn server(&self) -> &str {
        &self.access.server
    }

    pub(crate) fn credential(&self) -> &Credential {
        &self.access.credential
    }

    /// Tells how wrong this VM's clock is by the server's last answer, if it is.
    pub(crate) fn clock_problem(&self) -> Option<String> {
        self.clock.problem()
    }

    /// The object as it is now.
    pub(crate) async fn get<T: DeserializeOwned>(&self, resource: &Resource) -> Result<T, Failure> {
        let request = self.client.get(&self.url(&resource.path()));
        self.call(Verb::Get, resource, request).await
    }

    /// A token of the service account that `resource` names, for `audience`.
    pub(crate) async fn token(&self, resource: &Resource, audience: &str) -> Result<String, Failure> {
        let spec = json!({"audiences": [audience], "expirationSeconds": TOKEN_LIFE.as_secs()});
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
        let request = self.client.post(&self.url(&resource.path())).json(&body);
        let answer: TokenRequest = self.call(Verb::Create, resource, request).await?;
        Ok(answer.status.token)
    }

    /// Completes when the object has changed since `version`, or after `life`: then it is to be asked for again.
    pub(crate) async fn wait_for_change(
        &self,
        resource: &Resource,
        version: &str,
        life: Duration,
    ) -> Result<(), Failure> {
        let bearer = self.access.credential.bearer().await?;
        let url = self.url(&resource.watch_path(version, life.as_secs()));
        let mut response = self
            .client
            .start(signed(self.client.get(&url), bearer.as_ref()))
            .await?;
        if !response.status().is_success() {
            let answer = Answer {
                status: response.status(),
                headers: response.headers().clone(),
                text: String::new(),
            };
            return Err(self.refused(Verb::Watch, resource, bearer.as_ref(), &answer));
        }
        // Bookmarks weren't asked for: whatever comes is news, the end included. A connection that died unseen ends
        // with the time.
        let began = Instant::now();
        let news = timeout(life + OVERTIME, response.chunk()).await;
        let news = news.map_or(Ok(None), |news| news.context("the watch broke off"))?;
        let is_watch = news.is_some() || began.elapsed() >= life.min(SHORTEST_WATCH);
        Ok(is_watch
            .then_some(())
            .with_context(|| format!("the watch of {resource} ended at once, without a word"))?)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        verb: Verb,
        resource: &Resource,
        request: RequestBuilder,
    ) -> Result<T, Failure> {
        let bearer = self.access.credential.bearer().await?;
        let answer = self
            .client
            .exchange(signed(request, bearer.as_ref()), MAX_BYTES)
            .await?;
        if !answer.status.is_success() {
            return Err(self.refused(verb, resource, bearer.as_ref(), &answer));
        }
        // Told before istiod's certificate or a token is judged by a wrong clock.
        self.clock.compare(&answer.headers);
        // The text may be a token: no parser's error may quote it.
        let document: Option<Value> = serde_json::from_str(&answer.text).ok();
        let document = document.filter(Value::is_object).with_context(|| {
            format!(
                "the answer of {} to {verb} {resource} is none of Kubernetes",
                self.access.server
            )
        })?;
        let wrong = |field| {
            let kind = resource.kind().plural();
            anyhow!("{resource}: {field}: write what `kubectl explain {kind}` says")
        };
        Ok(typed(&document).map_err(wrong)?)
    }

    fn refused(&self, verb: Verb, resource: &Resource, bearer: Option<&Bearer>, answer: &Answer) -> Failure {
        if answer.status == StatusCode::UNAUTHORIZED {
            self.access.credential.refused();
        }
        let access = &self.access;
        Failure::Refused(Box::new(Refusal::new(
            &access.server,
            (verb, resource),
            (&access.credential, bearer),
            answer,
            SystemTime::now(),
        )))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.access.server)
    }
}

fn signed(request: RequestBuilder, bearer: Option<&Bearer>) -> RequestBuilder {
    match bearer {
        // reqwest marks the header as sensitive.
        Some(bearer) => request.bearer_auth(bearer.expose()),
        None => request,
    }
}
