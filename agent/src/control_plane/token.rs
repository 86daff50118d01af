//! The bootstrap token: read for every call, never kept, never shown. Its claims are read to explain a refusal
//! and to warn before one; istiod judges whether it is genuine.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::facts::{Secret, SpiffeId, date};
use crate::host::{Host, Read};

/// Audience that istiod asks TokenReview for (TOKEN_AUDIENCES, istio/pkg/security/security.go).
pub const AUDIENCE: &str = "istio-ca";
/// Longest token, in bytes: a JWT is far smaller, and a larger file is not one.
const MAX_TOKEN: usize = 64 << 10;
/// Longest time by which a token may begin ahead of this VM's clock: the API server, who judges it, allows as much.
const CLOCK_LEEWAY: Duration = Duration::from_secs(60);
/// Last second of the year 9999, the last date that RFC 3339 can show.
const MAX_SECONDS: f64 = 253_402_300_799.0;

/// A bearer token.
#[derive(Clone, Debug)]
pub struct Token(Secret);

impl Token {
    /// Reads a token file, surrounding blanks aside.
    ///
    /// # Errors
    /// When there is no JWT in it.
    pub fn read(path: &Path) -> Result<Self> {
        let remedy = || {
            format!(
                "failed to read the token {}: put one there that `istioctl x workload entry configure` wrote",
                path.display()
            )
        };
        // It is shown to whom the bundle names: a link to somebody else's token must not be.
        let text = Host::system()
            .read(path, Read::max(MAX_TOKEN).given())
            .with_context(remedy)?;
        let text = Zeroizing::new(text.context("there is none").with_context(remedy)?);
        Self::new(&path.display().to_string(), &text)
    }

    /// Takes a token that came from `place`, surrounding blanks aside.
    ///
    /// # Errors
    /// When it can be no JWT.
    pub fn new(place: &str, text: &str) -> Result<Self> {
        if text.len() > MAX_TOKEN {
            bail!("{place}: a token has at most {MAX_TOKEN} bytes");
        }
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{place}: holds no JWT");
        }
        Ok(Self(Secret::new(text)))
    }

    /// The token, for the `authorization` header only.
    pub(super) fn expose(&self) -> &str {
        self.0.expose()
    }

    /// Claims that the token makes.
    pub fn claims(&self) -> Result<Claims, NoClaims> {
        Claims::parse(self.expose())
    }
}

/// A maker of tokens for this VM at every need, so that none has to be kept: a join source that can.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// Place that its tokens come from, for messages.
    fn place(&self) -> String;

    /// Credential that the source itself is asked with, for people, and its end; `None` where it has no end, or is
    /// renewed by this VM.
    fn credential_end(&self) -> Option<(String, SystemTime)> {
        None
    }

    /// A fresh token for istiod ([`AUDIENCE`]); bounded in time.
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Token>> + Send + '_>>;
}

/// The reason why a token has no claims; never quotes it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoClaims {
    /// The text is not three parts with dots between.
    #[error("it is no JWT")]
    Shape,
    /// The middle part can't be read.
    #[error("it is a JWT whose claims can't be read")]
    Payload,
}

/// Claims of a JWT (RFC 7519), unverified.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Claims {
    /// `aud`: those whom it is for.
    pub audience: Vec<String>,
    /// `nbf`: the time from which on it is good.
    pub not_before: Option<SystemTime>,
    /// `exp`: the time until which it is good.
    pub expires: Option<SystemTime>,
    /// `sub`: `system:serviceaccount:<namespace>:<name>` in Kubernetes.
    pub subject: Option<String>,
}

#[derive(Deserialize)]
struct Payload {
    aud: Option<Audience>,
    nbf: Option<f64>,
    exp: Option<f64>,
    sub: Option<String>,
}

/// RFC 7519, section 4.1.3: one string, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Claims {
    /// Reads the claims of a JWT without verifying it.
    ///
    /// # Errors
    /// When it has none that can be read.
    pub fn parse(jwt: &str) -> Result<Self, NoClaims> {
        let mut parts = jwt.trim().split('.');
        let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(NoClaims::Shape);
        };
        if payload.len() > MAX_TOKEN {
            return Err(NoClaims::Payload);
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .map_err(|_| NoClaims::Payload)?;
        let payload: Payload = serde_json::from_slice(&bytes).map_err(|_| NoClaims::Payload)?;
        Ok(Self {
            audience: match payload.aud {
                None => Vec::new(),
                Some(Audience::One(audience)) => vec![audience],
                Some(Audience::Many(audience)) => audience,
            },
            not_before: payload.nbf.map(moment).transpose()?,
            expires: payload.exp.map(moment).transpose()?,
            subject: payload.sub,
        })
    }

    /// True where the clock that says `now` is behind that of whoever made the token.
    pub fn is_early(&self, now: SystemTime) -> bool {
        self.not_before.is_some_and(|start| start > now + CLOCK_LEEWAY)
    }

    /// The flaw that makes istiod refuse these claims for `id` at `now`; `None` when there is none.
    pub fn flaw(&self, id: &SpiffeId, now: SystemTime) -> Option<TokenFlaw> {
        let subject = format!("system:serviceaccount:{}:{}", id.namespace, id.service_account);
        let flaw = |what, remedy| Some(TokenFlaw { what, remedy });
        if let Some(expires) = self.expires.filter(|expires| *expires <= now) {
            return flaw(
                format!("expired at {}", date(expires)),
                format!(
                    "make a new one with `istioctl x workload entry configure`, or `kubectl create token {} -n {} --audience {AUDIENCE}`",
                    id.service_account, id.namespace
                ),
            );
        }
        if let Some(start) = self.not_before.filter(|_| self.is_early(now)) {
            return flaw(
                format!(
                    "is good from {} on, and this VM's clock says {}",
                    date(start),
                    date(now)
                ),
                "set the clock".to_owned(),
            );
        }
        if !self.audience.iter().any(|audience| audience == AUDIENCE) {
            let audience = self.audience.join(", ");
            return flaw(
                format!("is for audience {audience:?}, and istiod takes {AUDIENCE:?}"),
                format!("make one with `--audience {AUDIENCE}`"),
            );
        }
        match &self.subject {
            Some(found) if *found != subject => flaw(
                format!("is of {found:?}, and the VM's identity {id} needs {subject:?}"),
                format!(
                    "make a token of this group's service account, by `kubectl create token {} -n {} --audience {AUDIENCE}` or in a new \
                     bundle",
                    id.service_account, id.namespace
                ),
            ),
            _ => None,
        }
    }
}

/// A flaw for which istiod refuses a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TokenFlaw {
    /// Fault of the token, in words.
    pub what: String,
    /// Remedy, in words.
    pub remedy: String,
}

impl fmt::Display for TokenFlaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// A NumericDate that a person can be shown.
fn moment(seconds: f64) -> Result<SystemTime, NoClaims> {
    if !(0.0..=MAX_SECONDS).contains(&seconds) {
        return Err(NoClaims::Payload);
    }
    Ok(UNIX_EPOCH + Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control_plane::fixtures::{id, jwt};
    use crate::host::System;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn claims_of_kubernetes_are_read() {
        let claims = Claims::parse(&jwt(
            r#"{"aud":["istio-ca"],"exp":1795231431,"nbf":1795227831,"sub":"system:serviceaccount:shop:catalog"}"#,
        ));
        let expected = Claims {
            audience: vec!["istio-ca".to_owned()],
            not_before: Some(at(1_795_227_831)),
            expires: Some(at(1_795_231_431)),
            subject: Some("system:serviceaccount:shop:catalog".to_owned()),
        };
        assert_eq!(claims, Ok(expected));
    }

    #[test]
    fn claims_that_istiod_will_refuse_have_a_problem() {
        let cases = [
            (
                r#"{"aud":"istio-ca","exp":1000}"#,
                "expired at 1970-01-01T00:16:40Z: make a new one",
            ),
            (
                r#"{"aud":"istio-ca","exp":9000,"nbf":3000}"#,
                "this VM's clock says 1970-01-01T00:33:20Z: set the clock",
            ),
            (
                r#"{"aud":["a","b"],"exp":9000}"#,
                r#"is for audience "a, b", and istiod takes "istio-ca""#,
            ),
            (
                r#"{"aud":"istio-ca","exp":9000,"sub":"system:serviceaccount:shop:web"}"#,
                r#"is of "system:serviceaccount:shop:web""#,
            ),
        ];
        for (payload, expected) in cases {
            let claims = Claims::parse(&jwt(payload)).unwrap();
            let problem = claims.flaw(&id(), at(2000)).map(|flaw| flaw.to_string());
            assert_eq!(
                claims.is_early(at(2000)),
                expected.contains("set the clock"),
                "{payload}"
            );
            assert!(
                problem.as_ref().is_some_and(|text| text.contains(expected)),
                "{payload}: {problem:?}"
            );
        }
        let good = Claims::parse(&jwt(
            r#"{"aud":"istio-ca","exp":9000,"nbf":2030,"sub":"system:serviceaccount:shop:catalog"}"#,
        ));
        assert_eq!(good.unwrap().flaw(&id(), at(2000)), None);
    }

    #[test]
    fn token_file_that_holds_none_is_named_and_never_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path(), System);
        let file = directory.path().join("istio-token");
        let long = "x".repeat(MAX_TOKEN + 1);
        for (content, expected) in [
            ("secret token", "no JWT"),
            ("", "no JWT"),
            (&long, "is longer than 65536 bytes"),
        ] {
            host.write("/istio-token".as_ref(), content, 0o600, None).unwrap();
            let error = format!("{:#}", Token::read(&file).unwrap_err());
            assert!(error.contains("istio-token") && error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert_eq!(format!("{:?}", Token(Secret::new("secret"))), "Token(redacted)");
    }

    proptest! {
        #[test]
        fn claims_of_any_text_are_parsed_or_refused_without_a_panic(text in any::<String>(), payload in any::<String>(), n in any::<f64>()) {
            let _ = Claims::parse(&text);
            let _ = Claims::parse(&jwt(&payload));
            if let Ok(claims) = Claims::parse(&jwt(&format!(r#"{{"exp":{n},"nbf":{n}}}"#))) {
                let _ = claims.flaw(&id(), UNIX_EPOCH);
            }
        }
    }
}
