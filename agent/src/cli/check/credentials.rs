//! What this VM can prove itself with: the stored certificate, else a token.

use std::time::{Duration, SystemTime};

use crate::config::Config;
use crate::control_plane::token::{Token, TokenSource};
use crate::facts::{Credentials, Membership, date};
use crate::host::Host;
use crate::identity;
use crate::part::Finding;

/// A token that ends sooner is worth a word: it must outlive the first start.
const SHORT_LIFE: Duration = Duration::from_secs(10 * 60);
const TOKEN: &str = "token";

/// A valid certificate needs no token; without one the token must be good.
pub(super) async fn findings(
    config: &Config,
    host: &Host,
    membership: &Membership,
    tokens: Option<&dyn TokenSource>,
    now: SystemTime,
) -> Vec<Finding> {
    let certificate = certificate(config, host, membership, now);
    let valid = certificate.is_some();
    let certificate = match certificate {
        Some(it) => Finding::ok("certificate", format!("valid until {}", date(it.not_after))),
        None => Finding::ok("certificate", "none stored; the first one is asked for with the token"),
    };
    let token = match tokens {
        Some(source) => asked_for(source, membership, now).await,
        None => in_the_bundle(membership, now)
            .map_err(|problem| format!("{problem}: make a new bundle with `istioctl x workload entry configure`")),
    };
    let token = match token {
        Err(problem) if valid => Finding::ok(TOKEN, format!("{problem}; not needed while the certificate is valid")),
        Err(problem) => Finding::failed(TOKEN, problem),
        Ok(fine) => fine,
    };
    vec![certificate, token]
}

/// The stored one, when it is of any use.
pub(super) fn certificate(
    config: &Config,
    host: &Host,
    membership: &Membership,
    now: SystemTime,
) -> Option<Credentials> {
    let stored = identity::stored(host, &config.paths.identity()).ok().flatten();
    stored.filter(|it| it.spiffe_id == membership.spiffe_id && it.valid_at(now))
}

async fn asked_for(source: &dyn TokenSource, membership: &Membership, now: SystemTime) -> Result<Finding, String> {
    let token = source.token().await.map_err(|error| format!("{error:#}"))?;
    judge(&source.place(), &token, membership, now)?;
    Ok(Finding::ok(
        TOKEN,
        format!("asked for at every need, from {}", source.place()),
    ))
}

fn in_the_bundle(membership: &Membership, now: SystemTime) -> Result<Finding, String> {
    let path = membership
        .token_file
        .as_deref()
        .ok_or("the bundle has no istio-token")?;
    let token = Token::read(path).map_err(|error| format!("{error:#}"))?;
    let Some(left) = judge(&path.display().to_string(), &token, membership, now)? else {
        return Ok(Finding::warning(
            TOKEN,
            "never expires: whoever reads it can join as this VM for ever",
        ));
    };
    let detail = format!("{} minutes left", left.as_secs() / 60);
    Ok(if left < SHORT_LIFE {
        Finding::warning(TOKEN, detail)
    } else {
        Finding::ok(TOKEN, detail)
    })
}

/// Remaining life of a token; `None`: it has no end.
fn judge(place: &str, token: &Token, membership: &Membership, now: SystemTime) -> Result<Option<Duration>, String> {
    let claims = token.claims().map_err(|error| format!("{place}: {error}"))?;
    match claims.problem(&membership.spiffe_id, now) {
        Some(problem) => Err(format!("{place}: {problem}")),
        None => Ok(claims.expires.and_then(|expires| expires.duration_since(now).ok())),
    }
}
