//! A webhook that the second cluster's API server asks about every write of a VirtualService, and that answers when the
//! case says so: what happens between the two clusters' writes happens then.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::network::Host;
use e2e::pki::Pki;
use e2e::web::WebServer;
use e2e::{PATIENCE, eventually};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::desk::Desk;

const PORT: u16 = 9443;
/// Only its dry run is asked for.
const PROBE: &str =
    "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: probe, namespace: onlineboutique},
    spec: {hosts: [probe], http: [{route: [{destination: {host: probe}}]}]}}";

/// Answer of istiod's webhook.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Allow,
    Deny,
    /// Nothing yet.
    Wait,
}

#[derive(Debug)]
struct Asked {
    answer: watch::Sender<Answer>,
    /// Requests that wait for an answer.
    waiting: watch::Sender<usize>,
}

pub(super) struct Admission {
    asked: Arc<Asked>,
    _server: WebServer,
}

impl Admission {
    /// In force, and allows all.
    pub(super) fn start(desk: &Desk<'_>) -> Result<Self> {
        let (pki, host) = (Pki::default(), Host::Outside);
        let address = host.ipv4().to_string();
        let credentials = pki.issue_for_names(&[&address]);
        let asked = Arc::new(Asked {
            answer: watch::Sender::new(Answer::Deny),
            waiting: watch::Sender::new(0),
        });
        let router = Router::new().route("/", post(review)).with_state(Arc::clone(&asked));
        let at = SocketAddr::from((host.ipv4(), PORT));
        let server = WebServer::start(desk.network, host, at, Some(&credentials), router)?;
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": "the-case" },
            "webhooks": [{
                "name": "the-case.e2e.test", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 30,
                "clientConfig": { "url": format!("https://{address}:{PORT}/"), "caBundle": STANDARD.encode(pki.root_pem()) },
                "rules": [{ "apiGroups": ["networking.istio.io"], "apiVersions": ["v1"], "resources": ["virtualservices"],
                            "operations": ["CREATE", "UPDATE", "DELETE"] }],
            }],
        });
        desk.clusters[1].apply(&webhook.to_string())?;
        eventually("the webhook is in force", PATIENCE, || {
            ensure!(desk.clusters[1].check(PROBE).is_err(), "it was not asked");
            Ok(())
        })?;
        asked.answer.send_replace(Answer::Allow);
        Ok(Self { asked, _server: server })
    }

    /// The next write gets no answer.
    pub(super) fn hold(&self) {
        self.asked.answer.send_replace(Answer::Wait);
    }

    /// Completes when a write waits for an answer.
    pub(super) fn wait_for_write(&self) -> Result<()> {
        eventually("a write to the second cluster", PATIENCE, || {
            ensure!(*self.asked.waiting.borrow() > 0, "nobody writes");
            Ok(())
        })
    }

    pub(super) fn allow(&self) {
        self.asked.answer.send_replace(Answer::Allow);
    }

    /// Refuses what waits, and allows what comes after.
    pub(super) fn refuse(&self) -> Result<()> {
        self.asked.answer.send_replace(Answer::Deny);
        eventually("the answer", PATIENCE, || {
            ensure!(*self.asked.waiting.borrow() == 0, "it was not given");
            Ok(())
        })?;
        self.allow();
        Ok(())
    }
}

async fn review(State(asked): State<Arc<Asked>>, Json(review): Json<Value>) -> Json<Value> {
    let _waiting = Waiting::new(&asked.waiting);
    let mut answer = asked.answer.subscribe();
    let is_allowed = answer
        .wait_for(|answer| *answer != Answer::Wait)
        .await
        .is_ok_and(|answer| *answer == Answer::Allow);
    Json(json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "response": { "uid": review["request"]["uid"], "allowed": is_allowed, "status": { "message": "not today" } },
    }))
}

/// Counts a request until it is answered, or nobody wants the answer any more.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
