//! The VM's identity as a part: its certificate in `status`, and what is wrong with it.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::facts::{Credentials, IdentityProblem, IssuedWith, Membership, date};
use crate::identity::metrics::METRICS;
use crate::identity::{self, check, sds};
use crate::part::{
    Change, Changes, Channels, CheckContext, Code, Context, ENVOY_USER, Effect, Metric, Part, Plan, Problems, Question,
    SHORT,
};
use crate::part::{Section, Site, State, Task, ago, changes_of, rounded};
use crate::supervise::Clock;

/// Keeps the VM's certificate.
#[derive(Debug)]
pub struct IdentityPart;

/// Serves the certificate to Envoy.
#[derive(Debug)]
pub struct SdsPart;

/// The certificate, without the key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct IdentityState {
    /// `spiffe://…`.
    spiffe_id: String,
    /// Serial number, in lower-case hexadecimal.
    serial: String,
    /// Start of validity.
    #[serde(with = "humantime_serde")]
    not_before: SystemTime,
    /// End of validity.
    #[serde(with = "humantime_serde")]
    not_after: SystemTime,
    /// The credential that the CA gave it for, and when.
    #[serde(default, rename = "proven")]
    issued_with: Option<IssuedWith>,
}

impl From<&Credentials> for IdentityState {
    fn from(credentials: &Credentials) -> Self {
        Self {
            spiffe_id: credentials.spiffe_id.to_string(),
            serial: credentials.serial.clone(),
            not_before: credentials.not_before,
            not_after: credentials.not_after,
            issued_with: credentials.issued_with.clone(),
        }
    }
}

const SECTION: State<Option<IdentityState>> = State {
    key: "identity",
    title: "Identity",
    live: |channels| channels.credentials.borrow().as_deref().map(IdentityState::from),
    offline,
    lines: |state, now| match state {
        None => vec!["none yet".to_owned()],
        Some(state) => vec![line(state, now)],
    },
};

impl Part for IdentityPart {
    fn name(&self) -> &'static str {
        "identity"
    }

    /// The first certificate comes while Envoy starts; nothing is served before that, and nothing is redirected.
    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let options = identity::Options {
            selector: channels.selector.clone(),
            host: site.host.clone(),
            config: site.config.identity.clone(),
            store: site.config.paths.identity(),
            tokens: context.tokens.clone(),
            clock: Clock::System,
            problem: channels.identity_problem.clone(),
        };
        let (membership, publish) = (channels.membership.subscribe(), channels.credentials.clone());
        let host = channels.host.subscribe();
        let task = Task::new(SHORT, |scope| identity::run(scope, options, membership, host, publish));
        Some(task.beside_next(true))
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        check::questions(context)
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn plan<'a>(&'a self, site: &'a Site, _: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(async {
            let path = site.config.paths.identity();
            let path = path.display();
            Ok(match offline(site) {
                Some(_) => Plan::default(),
                None => Plan::of(Change::new(
                    "the certificate",
                    format!("+ {path}: a new key, and the certificate for it"),
                ))
                .effect(Effect::Writes, format!("key and certificate into {path}")),
            })
        })
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![
            changes_of(&channels.credentials),
            changes_of(&channels.identity_problem),
        ]
    }

    fn problems(&self, context: &Context, now: SystemTime) -> Problems {
        let credentials = context.channels.credentials.borrow().clone();
        let problem = context.channels.identity_problem.borrow().clone();
        problems(credentials.as_deref(), problem.as_ref(), now)
    }
}

impl Part for SdsPart {
    fn name(&self) -> &'static str {
        "sds"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let options = sds::Options {
            host: context.site.host.clone(),
            socket: context.site.config.paths.sds_socket(),
            owner: ENVOY_USER,
            refusals: context.channels.refusals.clone(),
        };
        let credentials = context.channels.credentials.subscribe();
        Some(Task::new(SHORT, |scope| sds::serve(scope, options, credentials)))
    }
}

/// The stored certificate, valid or not.
fn offline(site: &Site) -> Option<IdentityState> {
    let stored = identity::stored(&site.host, &site.config.paths.identity())
        .ok()
        .flatten();
    stored.as_ref().map(IdentityState::from)
}

fn problems(credentials: Option<&Credentials>, problem: Option<&IdentityProblem>, now: SystemTime) -> Problems {
    let why = problem.map_or("`istio-vm-agent check` tells why", |problem| &problem.text);
    let Some(held) = credentials else {
        let missing = format!("there is no certificate yet: {why}");
        let code = match problem.is_some_and(|problem| problem.is_unreachable) {
            true => Code::IstiodUnreachable,
            false => Code::CertificateMissing,
        };
        return Problems::default().blocking(code, [missing]);
    };
    let (begins, ends) = (date(held.not_before), date(held.not_after));
    if now >= held.not_after {
        let expired = format!("the certificate expired at {ends}: {why}");
        return Problems::default().blocking(Code::CertificateExpired, [expired]);
    }
    if now < held.not_before {
        let now = date(now);
        let early = format!("the certificate is valid from {begins} only: set the VM's clock, it says {now}");
        return Problems::default().blocking(Code::Clock, [early]);
    }
    if let Some(problem) = problem {
        let failing = format!(
            "the certificate, which expires at {ends}, is not renewed: {}",
            problem.text
        );
        return Problems::default().amiss(Code::CertificateRenewal, [failing]);
    }
    let late = is_renewal_late(held, now).then(|| {
        format!("the certificate expires at {ends} and its renewal is late: `istio-vm-agent check` tells why")
    });
    Problems::default().amiss(Code::CertificateRenewal, late)
}

/// Renewal begins at half life, and is late at three quarters.
fn is_renewal_late(held: &Credentials, now: SystemTime) -> bool {
    let (given, life) = life(&IdentityState::from(held));
    now >= given + life / 4 * 3
}

/// Half of its life from when it was given, by which a hundredth of chance spreads a fleet.
fn renewal(state: &IdentityState) -> SystemTime {
    let (given, life) = life(state);
    given + life / 2
}

/// When a certificate was given, and its life from then on: CAs date it back, which of a short one is much.
fn life(state: &IdentityState) -> (SystemTime, Duration) {
    let given = state.issued_with.as_ref().map_or(state.not_before, |given| given.at);
    let given = given.clamp(state.not_before, state.not_after.max(state.not_before));
    (given, state.not_after.duration_since(given).unwrap_or_default())
}

fn line(state: &IdentityState, now: SystemTime) -> String {
    let IdentityState {
        spiffe_id,
        serial,
        not_after,
        issued_with,
        ..
    } = state;
    let until = date(*not_after);
    let left = not_after
        .duration_since(now)
        .map_or_else(|_| "EXPIRED".to_owned(), |left| format!("{} left", rounded(left)));
    let renewal = match now < *not_after {
        true => format!(", renewal about {}", date(renewal(state))),
        false => String::new(),
    };
    let given_for = issued_with.as_ref().map_or_else(String::new, |IssuedWith { by, at }| {
        format!(", given for {by} {}", ago(*at, now))
    });
    format!("{spiffe_id}, until {until} ({left}){renewal}, serial {serial}{given_for}")
}

#[cfg(test)]
mod tests;
