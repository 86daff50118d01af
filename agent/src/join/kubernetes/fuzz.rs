//! Properties of the meaning of an API server's refusal, whatever it says.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::refusal::explain;
use crate::config::KeyOrigin;
use crate::kube::bearer::Bearer;
use crate::kube::resource::Verb;
use crate::kube::{Credential, Kind, Refusal, Resource};
use crate::web::Answer;

pub(crate) use super::compose::fuzz::{duration, objects};

/// The status and the text of an answer that is no success.
pub(crate) fn refusal(input: &str) {
    let (code, text) = input.split_once('\0').unwrap_or(("403", input));
    let bearer = Bearer::new("/token", "a.e30.b").expect("a token");
    let credential = Credential::Token {
        bearer: bearer.clone(),
        place: "/token".to_owned(),
    };
    let resource = Resource::new(Kind::WorkloadGroup, "shop", "productcatalog");
    let answer = Answer {
        status: code.parse().unwrap_or(StatusCode::FORBIDDEN),
        headers: HeaderMap::new(),
        text: text.to_owned(),
    };
    let refusal = Refusal::new(
        "https://10.0.0.1",
        (Verb::Get, &resource),
        (&credential, Some(&bearer)),
        &answer,
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    );
    let told = explain(&refusal, KeyOrigin::Kubernetes);
    assert!(told.lines().count() == 1 && told.chars().count() < 2000);
}
