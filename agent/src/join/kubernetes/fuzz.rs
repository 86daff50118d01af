//! What holds of what API servers say, and of how they are reached, whatever the texts.

use std::path::Path;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::access::{Bearer, Credential};
use super::refusal::Asked;
use super::resource::{Kind, Resource, Verb};
use super::{exec, kubeconfig as kubeconfigs};
use crate::config::Keys;
use crate::host::{Host, System};
use crate::web::Answer;

pub(crate) use super::compose::fuzz::{duration, objects};

/// kubectl's configuration file.
pub(crate) fn kubeconfig(text: &str) {
    let host = Host::new("/nonexistent", System);
    if let Ok(access) = kubeconfigs::parse(text, Path::new("/k/config"), None, &host) {
        assert!(access.server.starts_with("https://"));
    }
}

/// What a credential plugin printed.
pub(crate) fn credential(text: &str) {
    if let Ok((bearer, _)) = exec::parse(text) {
        assert!(bearer.expose().bytes().all(|byte| byte.is_ascii_graphic()));
    }
}

/// The status and the text of an answer that is no success.
pub(crate) fn refusal(input: &str) {
    let (code, text) = input.split_once('\0').unwrap_or(("403", input));
    let bearer = Bearer::new("/token", "a.e30.b").expect("a token");
    let credential = Credential::Token {
        bearer: bearer.clone(),
        place: "/token".to_owned(),
    };
    let resource = Resource::new(Kind::WorkloadGroup, "shop", "productcatalog");
    let asked = Asked {
        server: "https://10.0.0.1",
        keys: Keys::Kubernetes,
        verb: Verb::Get,
        resource: &resource,
        credential: &credential,
        bearer: Some(&bearer),
    };
    let answer = Answer {
        status: code.parse().unwrap_or(StatusCode::FORBIDDEN),
        headers: HeaderMap::new(),
        text: text.to_owned(),
    };
    let told = asked.explain(&answer, SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    assert!(told.lines().count() == 1 && told.chars().count() < 2000);
}
