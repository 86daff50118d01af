//! Credentials that this VM can prove itself with: the stored certificate, else a token.

use std::time::{Duration, SystemTime};

use super::host::SET_THE_CLOCK;
use crate::control_plane::token::{Token, TokenFlaw, TokenSource};
use crate::facts::{Credentials, Membership, date};
use crate::identity;
use crate::part::{CheckContext, Finding, Level, Member, Question, Site, Subject};

/// A bundle's token that ends sooner is worth a word: it must outlive the first start.
const SHORT_LIFE: Duration = Duration::from_secs(10 * 60);
/// Time before the end of a credential for an API server from which on that is worth a word.
const SHORT_LEAVE: Duration = Duration::from_secs(60 * 60);
const CERTIFICATE: Subject = Subject::new("IVA401", "certificate");
const TOKEN: Subject = Subject::new("IVA402", "token");
const NEW_BUNDLE: &str = "make a new bundle with `istioctl x workload entry configure`";

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    vec![
        Question::look_of_member(CERTIFICATE, context, |site, membership| [stored(site, membership)]),
        Question::of_member(TOKEN, context, |member| async move { [token(member).await] }),
    ]
}

fn stored(site: &Site, membership: &Membership) -> Finding {
    match certificate(site, membership, SystemTime::now()) {
        Some(it) => CERTIFICATE.ok(format!("valid until {}", date(it.not_after))),
        None => CERTIFICATE.skipped("none is stored yet; the first one is asked for with the token"),
    }
}

/// A valid certificate needs no token; without one the token must be good.
async fn token(
    Member {
        site,
        membership,
        tokens,
    }: Member,
) -> Finding {
    let now = SystemTime::now();
    let (token, fix) = match &tokens {
        Some(source) => (
            asked_for(source.as_ref(), &membership, now).await,
            "let this VM's account make tokens of the group's service account: `istio-vm-agent manifests` prints the rights",
        ),
        None => (in_the_bundle(&membership, now), NEW_BUNDLE),
    };
    match token {
        Err(Flaw { problem, .. }) if certificate(&site, &membership, now).is_some() => unneeded(&problem),
        Ok(short)
            if tokens.is_none() && short.level == Level::Warning && certificate(&site, &membership, now).is_some() =>
        {
            unneeded(&short.detail)
        }
        Err(Flaw { problem, remedy }) => TOKEN.failed(problem, remedy.unwrap_or_else(|| fix.to_owned())),
        Ok(fine) => fine,
    }
}

fn unneeded(detail: &str) -> Finding {
    TOKEN.ok(format!("{detail}; not needed while the certificate is valid"))
}

/// Remedy for the bundle's token, where that is of no use.
pub(super) fn remedy(membership: &Membership, now: SystemTime) -> Option<String> {
    let flaw = in_the_bundle(membership, now).err()?;
    Some(flaw.remedy.unwrap_or_else(|| NEW_BUNDLE.to_owned()))
}

/// Why a token is of no use.
#[derive(Debug)]
struct Flaw {
    problem: String,
    /// Absent where it is that of whatever gives the tokens.
    remedy: Option<String>,
}

impl From<String> for Flaw {
    fn from(problem: String) -> Self {
        Self { problem, remedy: None }
    }
}

/// The stored one, when it is of any use.
pub(super) fn certificate(site: &Site, membership: &Membership, now: SystemTime) -> Option<Credentials> {
    let stored = identity::stored(&site.host, &site.config.paths.identity())
        .ok()
        .flatten();
    stored.filter(|it| it.spiffe_id == membership.spiffe_id && it.valid_at(now))
}

async fn asked_for(source: &dyn TokenSource, membership: &Membership, now: SystemTime) -> Result<Finding, Flaw> {
    let token = source.token().await.map_err(|error| format!("{error:#}"))?;
    judge(&source.place(), &token, membership, now)?;
    let detail = format!("asked for at every need, from {}", source.place());
    Ok(match source.credential_end() {
        Some((with, end)) if end < now + SHORT_LEAVE => TOKEN.warning(
            format!("{detail}, with {with}, which ends at {}", date(end)),
            "have something put a new one there before that, again and again, such as a timer with `kubectl create token`: it is \
             read at every need, and without a good one this VM serves on, but takes up no change of its WorkloadGroup",
        ),
        _ => TOKEN.ok(detail),
    })
}

fn in_the_bundle(membership: &Membership, now: SystemTime) -> Result<Finding, Flaw> {
    let path = membership
        .token_file
        .as_deref()
        .ok_or_else(|| "the bundle has no istio-token".to_owned())?;
    let token = Token::read(path).map_err(|error| format!("{error:#}"))?;
    let Some(left) = judge(&path.display().to_string(), &token, membership, now)? else {
        return Ok(TOKEN.warning(
            "never expires: whoever reads it can join as this VM for ever",
            "make a new bundle with `istioctl x workload entry configure`, whose token ends",
        ));
    };
    let detail = format!("{} minutes left, until {}", left.as_secs() / 60, date(now + left));
    Ok(if left < SHORT_LIFE {
        TOKEN.warning(detail, "start the agent before that, or make a new bundle then")
    } else {
        TOKEN.ok(format!("{detail}; the first certificate alone is asked for with it"))
    })
}

/// Remaining life of a token; `None`: it has no end.
fn judge(place: &str, token: &Token, membership: &Membership, now: SystemTime) -> Result<Option<Duration>, Flaw> {
    let claims = token.claims().map_err(|error| format!("{place}: {error}"))?;
    match claims.flaw(&membership.spiffe_id, now) {
        Some(TokenFlaw { what, remedy }) => Err(Flaw {
            problem: format!("{place}: {what}"),
            // Another token would be of no use either.
            remedy: Some(match claims.is_early(now) {
                true => SET_THE_CLOCK.to_owned(),
                false => remedy,
            }),
        }),
        None => Ok(claims.expires.and_then(|expires| expires.duration_since(now).ok())),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::control_plane::fixtures::{jwt, membership};

    /// An API server, and when what it is asked with ends.
    #[derive(Debug)]
    struct Asked(Option<SystemTime>);

    impl TokenSource for Asked {
        fn place(&self) -> String {
            "the API server https://a".to_owned()
        }

        fn credential_end(&self) -> Option<(String, SystemTime)> {
            Some(("the token of /token".to_owned(), self.0?))
        }

        fn token(&self) -> Pin<Box<dyn Future<Output = anyhow::Result<Token>> + Send + '_>> {
            let token = jwt(r#"{"aud":"istio-ca","exp":9000}"#);
            Box::pin(async move { Token::new("https://a", &token) })
        }
    }

    #[tokio::test]
    async fn what_an_api_server_is_asked_with_is_told_before_it_ends() {
        let now = UNIX_EPOCH + Duration::from_secs(2000);
        let said = async |end| asked_for(&Asked(end), &membership(), now).await.unwrap();
        for end in [None, Some(now + SHORT_LEAVE)] {
            assert_eq!(said(end).await.level, Level::Ok);
        }
        let found = said(Some(now + SHORT_LIFE)).await;
        assert_eq!(found.level, Level::Warning);
        assert!(
            found
                .detail
                .ends_with("with the token of /token, which ends at 1970-01-01T00:43:20Z"),
            "{found:?}"
        );
        assert!(found.fix.unwrap().starts_with("have something put a new one there"));
    }

    #[test]
    fn token_of_no_use_has_one_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("istio-token");
        let membership = Membership {
            token_file: Some(path.clone()),
            ..membership()
        };
        for (payload, problem, remedy) in [
            (
                r#"{"aud":"istio-ca","exp":1}"#,
                "expired at 1970-01-01T00:00:01Z",
                "make a new one with `istioctl",
            ),
            (
                r#"{"aud":"istio-ca","exp":9000,"nbf":3000}"#,
                "this VM's clock says 1970-01-01T00:33:20Z",
                SET_THE_CLOCK,
            ),
            (
                r#"{"aud":"a","exp":9000}"#,
                "and istiod takes \"istio-ca\"",
                "make one with `--audience istio-ca`",
            ),
        ] {
            std::fs::write(&path, jwt(payload)).unwrap();
            let now = UNIX_EPOCH + Duration::from_secs(2000);
            let flaw = in_the_bundle(&membership, now).unwrap_err();
            assert_eq!(super::remedy(&membership, now), flaw.remedy);
            assert!(flaw.problem.ends_with(problem), "{flaw:?}");
            assert!(
                flaw.remedy.as_ref().is_some_and(|it| it.starts_with(remedy)),
                "{flaw:?}"
            );
        }
        std::fs::write(&path, "no token").unwrap();
        let told = remedy(&membership, UNIX_EPOCH);
        assert_eq!(told.as_deref(), Some(NEW_BUNDLE));
    }
}
