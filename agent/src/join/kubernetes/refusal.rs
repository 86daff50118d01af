//! What an API server's refusal means, and what to do: one line, for people.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::access::{Bearer, Credential};
use super::objects::Status;
use super::resource::{Kind, Resource, Verb};
use crate::config::Keys;
use crate::control_plane::token::{AUDIENCE, Claims};
use crate::facts::date;
use crate::web::{Answer, wrong_clock};

/// Longest part of the server's words that is repeated.
const MAX_WORDS: usize = 400;

/// What was asked, and with what.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) server: &'a str,
    pub(super) keys: Keys,
    pub(super) verb: Verb,
    pub(super) resource: &'a Resource,
    pub(super) credential: &'a Credential,
    pub(super) bearer: Option<&'a Bearer>,
}

impl Asked<'_> {
    /// The meaning of `answer`, which is no success.
    pub(super) fn explain(&self, answer: &Answer, now: SystemTime) -> String {
        let status: Option<Status> = serde_json::from_str(&answer.text).ok();
        let said = status.as_ref().map(|status| words(&status.message)).unwrap_or_default();
        let meaning = match answer.status {
            StatusCode::UNAUTHORIZED => self.unauthorized(&answer.headers, now),
            StatusCode::FORBIDDEN => self.forbidden(&said),
            StatusCode::NOT_FOUND => match &status {
                Some(status) => self.not_found(status),
                None => "what answers there is no Kubernetes API server: check the URL".to_owned(),
            },
            StatusCode::TOO_MANY_REQUESTS => "the API server is too busy".to_owned(),
            status if status.is_server_error() => "the API server failed".to_owned(),
            status if status.is_redirection() => "what answers there sends elsewhere: check the URL".to_owned(),
            _ => "the API server refused the request".to_owned(),
        };
        let (verb, resource, server, code) = (self.verb, self.resource, self.server, answer.status.as_u16());
        let said = if said.is_empty() { said } else { format!(": {said}") };
        format!("failed to {verb} {resource} at {server}: {meaning} ({code}{said})")
    }

    fn unauthorized(&self, headers: &HeaderMap, now: SystemTime) -> String {
        let refused = format!("the API server doesn't accept {}", self.credential.name());
        if let Some(clock) = wrong_clock(headers, now) {
            return format!("{refused}, and {clock}");
        }
        let claims = self.bearer.and_then(|bearer| Claims::parse(bearer.expose()).ok());
        let why = match (claims, self.credential) {
            (Some(Claims { expires: Some(end), .. }), _) if end <= now => {
                format!(
                    "it expired at {}: put a fresh one there, or let something keep it fresh",
                    date(end)
                )
            }
            (Some(claims), _) if claims.audience.iter().any(|audience| audience == AUDIENCE) => format!(
                "it is for istiod (audience {AUDIENCE:?}), and this one wants its own: make one with `kubectl create token` without --audience"
            ),
            (Some(Claims { audience, .. }), _) if !audience.is_empty() => format!(
                "it is for audience {:?}: is it of this cluster, and does its service account still exist?",
                audience.join(", ")
            ),
            (_, Credential::Google(_)) => {
                "has the instance the access scope cloud-platform, and is its service account enabled?".to_owned()
            }
            (_, Credential::Certificate { .. }) => "is it of this cluster's CA, and still valid?".to_owned(),
            _ => "is it of this cluster, and still valid?".to_owned(),
        };
        format!("{refused}: {why}")
    }

    fn forbidden(&self, said: &str) -> String {
        if matches!(self.credential, Credential::Google(_)) && names_a_number(said) {
            return "Google didn't tell the cluster the e-mail of this VM's service account: add the access scope \
                    userinfo-email beside cloud-platform, with the VM stopped, by `gcloud compute instances \
                    set-service-account VM --scopes cloud-platform,userinfo-email`"
                .to_owned();
        }
        let (namespace, rule) = (&self.resource.namespace, self.resource.rule(self.verb));
        let claims = self.bearer.and_then(|bearer| Claims::parse(bearer.expose()).ok());
        let subject = claims.and_then(|claims| claims.subject);
        let home = subject.as_deref().and_then(|subject| {
            let name = subject.strip_prefix("system:serviceaccount:")?;
            name.split_once(':').map(|(namespace, _)| namespace)
        });
        let elsewhere = match home {
            Some(home) if home != namespace && self.resource.kind() == Kind::WorkloadGroup => format!(
                " (its service account is of namespace {home}: is {} = {namespace:?} right?)",
                self.keys.name("namespace")
            ),
            _ => String::new(),
        };
        format!(
            "{} may not do that{elsewhere}: a Role in namespace {namespace} must have the rule {rule}, bound to it: apply what `istio-vm-agent manifests` prints",
            self.credential.name()
        )
    }

    fn not_found(&self, status: &Status) -> String {
        let Resource { namespace, name, .. } = self.resource;
        let key = |key| self.keys.name(key);
        let is_named = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
        match self.resource.kind() {
            Kind::WorkloadGroup if !is_named => {
                "the cluster has no WorkloadGroups: install Istio, 1.22 or later, with its CRDs".to_owned()
            }
            Kind::WorkloadGroup => format!(
                "there is none of that name in namespace {namespace}: correct {} or {}, or apply what `istio-vm-agent manifests` prints",
                key("namespace"),
                key("workload_group")
            ),
            Kind::ConfigMap if name == super::ROOTS => format!(
                "istiod puts it into each namespace that it serves: is istiod up, and does it serve {namespace}?"
            ),
            Kind::ConfigMap => format!(
                "there is no Istio of that revision in {namespace}: correct {} or {}",
                key("revision"),
                key("istio_namespace")
            ),
            Kind::Service => format!(
                "no gateway of that name leads to istiod: correct {}, or set {} to istiod's address",
                key("ingress_service"),
                key("ingress")
            ),
            Kind::Token => format!(
                "the WorkloadGroup's service account {name} doesn't exist in namespace {namespace}: create it, or correct spec.template.serviceAccount"
            ),
        }
    }
}

/// Whether the API server knows the user by a number only, as GKE does without the scope userinfo.email.
fn names_a_number(said: &str) -> bool {
    let user = said.split_once("User \"").and_then(|(_, rest)| rest.split_once('"'));
    user.is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// One line, of bounded length.
fn words(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(MAX_WORDS).map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::google::Metadata;

    #[test]
    fn a_user_that_is_a_number_is_recognised() {
        let said =
            |user: &str| format!("workloadgroups.networking.istio.io \"a\" is forbidden: User \"{user}\" cannot get");
        assert!(names_a_number(&said("104512345678901234567")));
        for user in ["vm@shop.iam.gserviceaccount.com", "", "system:serviceaccount:1:2"] {
            assert!(!names_a_number(&said(user)), "{user}");
        }
        assert!(!names_a_number("User \"1"));
    }

    #[test]
    fn google_without_the_email_is_told_from_a_missing_role() {
        let resource = Resource::new(Kind::WorkloadGroup, "shop", "catalog");
        let explained = |user: &str| {
            let credential = Credential::Google(Metadata::at("http://127.0.0.1:9").unwrap());
            let asked = Asked {
                server: "https://a",
                keys: Keys::Kubernetes,
                verb: Verb::Get,
                resource: &resource,
                credential: &credential,
                bearer: None,
            };
            let answer = Answer {
                status: StatusCode::FORBIDDEN,
                headers: HeaderMap::new(),
                text: serde_json::json!({"message": format!("User \"{user}\" cannot get")}).to_string(),
            };
            asked.explain(&answer, SystemTime::now())
        };
        let number = explained("104512345678901234567");
        assert!(number.contains("--scopes cloud-platform,userinfo-email"), "{number}");
        let email = explained("vm@shop.iam.gserviceaccount.com");
        assert!(email.contains("a Role in namespace shop must have the rule"), "{email}");
    }
}
