//! The meaning of an API server's refusal for a join, and what to do: one line, for people.

use anyhow::{Error, anyhow};
use http::StatusCode;

use super::super::Answered;
use crate::config::KeyOrigin;
use crate::control_plane::token::{AUDIENCE, Claims};
use crate::facts::date;
use crate::kube::{Failure, Kind, Method, Refusal, Resource};

/// A failure in the words of the configuration that named the workload group in `keys`.
pub(super) fn explained(failure: Failure, keys: KeyOrigin) -> Error {
    match failure {
        Failure::Refused(refusal) if is_of_the_server(refusal.status) => anyhow!(explain(&refusal, keys)),
        Failure::Refused(refusal) => Answered(explain(&refusal, keys)).into(),
        Failure::Unanswered(error) => error,
    }
}

/// True for a failure that may be over at the next try, whatever was asked.
fn is_of_the_server(status: StatusCode) -> bool {
    status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS
}

/// The meaning of `refusal`; the server's own words last.
pub(super) fn explain(refusal: &Refusal, keys: KeyOrigin) -> String {
    let asked = Asked { refusal, keys };
    let said = refusal.said.as_ref();
    let words = said.map(|said| said.words.as_str()).unwrap_or_default();
    let meaning = match refusal.status {
        StatusCode::UNAUTHORIZED => asked.unauthorized(),
        StatusCode::FORBIDDEN => asked.forbidden(words),
        StatusCode::NOT_FOUND => match said {
            Some(said) => asked.not_found(said.names_an_object),
            // For a group or a version of it that it doesn't serve, the server has no Status, but Go's own words.
            None if asked.is_unserved() => asked.not_found(false),
            None => "what answers there is no Kubernetes API server: check the URL".to_owned(),
        },
        StatusCode::TOO_MANY_REQUESTS => "the API server is too busy".to_owned(),
        status if status.is_server_error() => "the API server failed".to_owned(),
        status if status.is_redirection() => "what answers there sends elsewhere: check the URL".to_owned(),
        _ => "the API server refused the request".to_owned(),
    };
    let Refusal {
        verb, resource, server, ..
    } = refusal;
    let code = refusal.status.as_u16();
    let words = if words.is_empty() {
        String::new()
    } else {
        format!(": {words}")
    };
    format!("failed to {verb} {resource} at {server}: {meaning} ({code}{words})")
}

struct Asked<'a> {
    refusal: &'a Refusal,
    keys: KeyOrigin,
}

impl Asked<'_> {
    /// True for a resource of Istio's where an API server has nothing at its path.
    fn is_unserved(&self) -> bool {
        self.refusal.resource.kind() == Kind::WorkloadGroup && self.refusal.is_plain
    }

    fn claims(&self) -> Option<Claims> {
        let bearer = self.refusal.bearer.as_ref()?;
        Claims::parse(bearer.expose()).ok()
    }

    fn unauthorized(&self) -> String {
        let Refusal { method, at, .. } = *self.refusal;
        let refused = format!("the API server doesn't accept {}", self.refusal.credential);
        if let Some(clock) = &self.refusal.clock {
            return format!("{refused}, and {clock}");
        }
        let why = match (self.claims(), method) {
            (Some(Claims { expires: Some(end), .. }), _) if end <= at => {
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
            (_, Method::Google) => {
                "has the instance the access scopes cloud-platform and userinfo-email, and is its service account enabled?".to_owned()
            }
            (_, Method::Certificate) => "is it of this cluster's CA, and still valid?".to_owned(),
            _ => "is it of this cluster, and still valid?".to_owned(),
        };
        format!("{refused}: {why}")
    }

    fn forbidden(&self, said: &str) -> String {
        if self.refusal.method == Method::Google && names_a_number(said) {
            return "Google didn't tell the cluster the e-mail of this VM's service account: add the access scope \
                    userinfo-email beside cloud-platform, with the VM stopped, by `gcloud compute instances \
                    set-service-account VM --scopes cloud-platform,userinfo-email`"
                .to_owned();
        }
        let Refusal { verb, resource, .. } = self.refusal;
        let (namespace, rule) = (&resource.namespace, resource.rule(*verb));
        let subject = self.claims().and_then(|claims| claims.subject);
        let home = subject.as_deref().and_then(|subject| {
            let name = subject.strip_prefix("system:serviceaccount:")?;
            name.split_once(':').map(|(namespace, _)| namespace)
        });
        let elsewhere = match home {
            Some(home) if home != namespace && resource.kind() == Kind::WorkloadGroup => format!(
                " (its service account is of namespace {home}: is {} = {namespace:?} right?)",
                self.keys.name("namespace")
            ),
            _ => String::new(),
        };
        format!(
            "{} may not do that{elsewhere}: a Role in namespace {namespace} must have the rule {rule}, bound to it: apply what `istio-vm-agent manifests` prints",
            self.refusal.credential
        )
    }

    fn not_found(&self, names_an_object: bool) -> String {
        let Resource { namespace, name, .. } = &self.refusal.resource;
        let key = |key| self.keys.name(key);
        match self.refusal.resource.kind() {
            Kind::WorkloadGroup if !names_an_object => {
                "the cluster serves no WorkloadGroups of networking.istio.io/v1: install Istio, 1.22 or later, with its CRDs"
                    .to_owned()
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
                "no gateway of that name leads to istiod: correct {}, or set {} to istiod's address (`up --ingress`)",
                key("ingress_service"),
                key("ingress")
            ),
            Kind::Token => format!(
                "the WorkloadGroup's service account {name} doesn't exist in namespace {namespace}: create it, or correct spec.template.serviceAccount"
            ),
        }
    }
}

/// True when the API server knows the user by a number only, as GKE does without the scope userinfo.email.
fn names_a_number(said: &str) -> bool {
    let user = said.split_once("User \"").and_then(|(_, rest)| rest.split_once('"'));
    user.is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::kube::refusal::ApiStatus;
    use crate::kube::resource::Verb;

    #[test]
    fn user_that_is_a_number_is_recognised() {
        let said =
            |user: &str| format!("workloadgroups.networking.istio.io \"a\" is forbidden: User \"{user}\" cannot get");
        assert!(names_a_number(&said("104512345678901234567")));
        for user in ["vm@shop.iam.gserviceaccount.com", "", "system:serviceaccount:1:2"] {
            assert!(!names_a_number(&said(user)), "{user}");
        }
        assert!(!names_a_number("User \"1"));
    }

    #[test]
    fn go_s_own_words_are_those_of_a_server_without_workloadgroups() {
        let explained = |kind, is_plain| {
            let refusal = Refusal {
                server: "https://a".to_owned(),
                verb: Verb::Get,
                resource: Resource::new(kind, "shop", "catalog"),
                status: StatusCode::NOT_FOUND,
                said: None,
                is_plain,
                credential: "the token".to_owned(),
                method: Method::Google,
                bearer: None,
                clock: None,
                at: SystemTime::UNIX_EPOCH,
            };
            explain(&refusal, KeyOrigin::Kubernetes)
        };
        assert!(explained(Kind::WorkloadGroup, true).contains("install Istio, 1.22 or later"));
        assert!(explained(Kind::WorkloadGroup, false).contains("check the URL"));
        assert!(explained(Kind::ConfigMap, true).contains("check the URL"));
    }

    #[test]
    fn google_without_the_email_is_told_from_a_missing_role() {
        let resource = Resource::new(Kind::WorkloadGroup, "shop", "catalog");
        let explained = |user: &str| {
            let refusal = Refusal {
                server: "https://a".to_owned(),
                verb: Verb::Get,
                resource: resource.clone(),
                status: StatusCode::FORBIDDEN,
                is_plain: false,
                said: Some(ApiStatus {
                    words: format!("User \"{user}\" cannot get"),
                    names_an_object: false,
                }),
                credential: "the access token".to_owned(),
                method: Method::Google,
                bearer: None,
                clock: None,
                at: SystemTime::UNIX_EPOCH,
            };
            explain(&refusal, KeyOrigin::Kubernetes)
        };
        let number = explained("104512345678901234567");
        assert!(number.contains("--scopes cloud-platform,userinfo-email"), "{number}");
        let email = explained("vm@shop.iam.gserviceaccount.com");
        assert!(email.contains("a Role in namespace shop must have the rule"), "{email}");
    }
}
