//! Authentication of a call: by the VM's certificate or by a token, and the meaning of a refusal.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::{Code, Status};

use super::failure::with_causes;
use super::token::{Claims, NoClaims, Token, TokenSource};
use crate::bounds::bounded_words;
use crate::facts::{Credentials, Membership};

/// Longest part of a peer's words that is repeated in an error, in characters.
const MAX_WORDS: usize = 400;

/// Words of istiod about a certificate's life (istio/security/pkg/pki/ca).
const TOO_LONG: &str = "is greater than the max allowed TTL";

/// Remedy for a life that istiod doesn't grant.
const TOO_LONG_REMEDY: &str = "identity.ttl is longer than istiod grants: write no more than its MAX_WORKLOAD_CERT_TTL, such as \
                               identity.ttl = \"24h\", or raise that";

/// Authentication of a call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AuthMethod {
    /// The VM's certificate, in TLS.
    Certificate,
    /// A token, in a header.
    Token {
        /// The file, or the source that made it.
        place: String,
        /// Claims that the token makes, or why it has none.
        claims: Result<Claims, NoClaims>,
    },
    /// None: there is no valid certificate, and the bundle has no token.
    Anonymous,
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("its certificate"),
            Self::Token { place, .. } => write!(f, "a token from {place}"),
            Self::Anonymous => f.write_str("nothing"),
        }
    }
}

/// Adds the headers of a call: the cluster whose API server judges the token, and a token when the connection shows no
/// certificate. Tokens are had anew for each call: from `tokens`, or else from the membership's file, which
/// something else refreshes. Returns how the call authenticates, so that a refusal can be explained.
///
/// # Errors
/// When the cluster's name can't stand in a header, or the token can't be had.
pub async fn authorize(
    metadata: &mut MetadataMap,
    membership: &Membership,
    credentials: Option<&Credentials>,
    tokens: Option<&dyn TokenSource>,
    now: SystemTime,
) -> Result<AuthMethod> {
    let cluster = membership
        .cluster_id
        .parse::<MetadataValue<Ascii>>()
        .with_context(|| format!("the cluster id {:?} can't be sent in a header", membership.cluster_id))?;
    metadata.insert("clusterid", cluster);
    if credentials.is_some_and(|credentials| credentials.valid_at(now)) {
        return Ok(AuthMethod::Certificate);
    }
    let Some((place, token)) = find_token(membership, tokens).await? else {
        return Ok(AuthMethod::Anonymous);
    };
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
        .parse()
        .map_err(|_| anyhow!("{place}: holds no JWT"))?;
    // Keeps it out of `Debug` and out of HPACK's tables.
    value.set_sensitive(true);
    metadata.insert("authorization", value);
    Ok(AuthMethod::Token {
        place,
        claims: token.claims(),
    })
}

/// A fresh token of the source, else the one in the file.
async fn find_token(membership: &Membership, tokens: Option<&dyn TokenSource>) -> Result<Option<(String, Token)>> {
    let file = membership.token_file.as_deref();
    if let Some(source) = tokens {
        match source.token().await {
            Ok(token) => return Ok(Some((source.place(), token))),
            Err(error) if file.is_none() => return Err(error),
            Err(error) => tracing::warn!("no token from {}, trying the file: {error:#}", source.place()),
        }
    }
    file.map(|path| Ok((path.display().to_string(), Token::read(path)?)))
        .transpose()
}

impl AuthMethod {
    /// True when this method wasn't good enough, so that another one may do better. TLS 1.3 refuses a certificate only
    /// after the handshake: the connection breaks under the first call.
    pub fn is_refused(&self, status: &Status) -> bool {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => true,
            // Ended by this end.
            Code::Cancelled | Code::DeadlineExceeded => false,
            _ => *self == Self::Certificate && status.source().is_some(),
        }
    }

    /// The meaning of istiod's refusal and what to do, in one line.
    pub fn explain(&self, status: &Status, membership: &Membership, now: SystemTime) -> String {
        let said = words(status);
        let code = status.code();
        let meaning = match code {
            Code::Unauthenticated => self.unauthenticated(membership, now),
            Code::PermissionDenied => format!("istiod knows the caller and won't let it be {}", membership.spiffe_id),
            Code::Unimplemented => "what answers there is no istiod: check the address".to_owned(),
            Code::InvalidArgument if status.message().contains(TOO_LONG) => TOO_LONG_REMEDY.to_owned(),
            Code::ResourceExhausted => "istiod limits its rate".to_owned(),
            Code::DeadlineExceeded => "istiod took the call and gave no answer in time".to_owned(),
            _ if self.is_refused(status) => {
                "the connection broke under the call, so istiod may have refused this VM's certificate".to_owned()
            }
            _ => "istiod failed to answer".to_owned(),
        };
        format!("{meaning} ({code:?}: {said})")
    }

    fn unauthenticated(&self, membership: &Membership, now: SystemTime) -> String {
        match self {
            Self::Certificate => "istiod doesn't accept this VM's certificate".to_owned(),
            Self::Anonymous => {
                "istiod wants a proof, and this VM has neither a valid certificate nor a token: put an istio-token into the bundle"
                    .to_owned()
            }
            Self::Token { place, claims } => {
                let problem = match claims {
                    Ok(claims) => claims.flaw(&membership.spiffe_id, now).map(|flaw| flaw.to_string()),
                    Err(error) => Some(format!("can't be good: {error}")),
                };
                let problem = problem.unwrap_or_else(|| {
                    format!(
                        "looks right, and the API server of cluster {:?} doesn't accept it: was it made in another cluster, has its service account been made anew, or does istiod not know the cluster?",
                        membership.cluster_id
                    )
                });
                format!("istiod refused the token: {place} {problem}")
            }
        }
    }
}

/// The peer's words, or what happened to the connection: one line, of bounded length.
fn words(status: &Status) -> String {
    let text = with_causes(status.message().to_owned(), status.source());
    bounded_words(&text, MAX_WORDS)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::control_plane::fixtures::{jwt, membership};

    fn token(payload: &str) -> AuthMethod {
        AuthMethod::Token {
            place: "/bundle/istio-token".to_owned(),
            claims: Claims::parse(&jwt(payload)),
        }
    }

    #[test]
    fn refusal_names_its_cause() {
        let refused = |message| Status::unauthenticated(message);
        let good = r#"{"aud":"istio-ca","exp":9000}"#;
        let cases = [
            (
                token(r#"{"aud":"istio-ca","exp":1}"#),
                refused("no"),
                "/bundle/istio-token expired at 1970-01-01T00:00:01Z",
            ),
            (
                token(r#"{"aud":"vault","exp":9000}"#),
                refused("no"),
                "is for audience \"vault\"",
            ),
            (
                token("nonsense"),
                refused("no"),
                "can't be good: it is a JWT whose claims can't be read",
            ),
            (token(good), refused("a\nb"), "cluster \"Kubernetes\" doesn't accept it"),
            (token(good), refused("a\nb"), "(Unauthenticated: a b)"),
            (
                AuthMethod::Anonymous,
                refused("no"),
                "neither a valid certificate nor a token",
            ),
            (
                AuthMethod::Certificate,
                refused("no"),
                "doesn't accept this VM's certificate",
            ),
            (
                token(good),
                Status::permission_denied("x"),
                "won't let it be spiffe://cluster.local/ns/shop/sa/catalog",
            ),
            (token(good), Status::unimplemented("x"), "no istiod"),
            (token(good), Status::deadline_exceeded("x"), "no answer in time"),
            (
                token(good),
                Status::unavailable("x"),
                "failed to answer (Unavailable: x)",
            ),
        ];
        for (method, status, expected) in cases {
            let text = method.explain(&status, &membership(), UNIX_EPOCH + Duration::from_secs(2000));
            assert!(text.contains(expected), "{status:?}: {text}");
        }
        let long = AuthMethod::Anonymous.explain(&Status::internal("x".repeat(10_000)), &membership(), UNIX_EPOCH);
        assert!(long.len() < 500, "{}", long.len());
    }

    #[test]
    fn life_that_istiod_does_not_grant_is_told_with_its_key() {
        let said = |words: &str| {
            let status = Status::invalid_argument(format!("CSR signing error ({words})"));
            AuthMethod::Certificate.explain(&status, &membership(), UNIX_EPOCH)
        };
        let told = said("requested TTL 2400h0m0s is greater than the max allowed TTL 2160h0m0s");
        assert!(
            told.starts_with(
                "identity.ttl is longer than istiod grants: write no more than its MAX_WORKLOAD_CERT_TTL, such as"
            ),
            "{told}"
        );
        assert!(told.contains("max allowed TTL 2160h0m0s"), "{told}");
        let other = said("no PEM");
        assert!(
            other.starts_with("istiod failed to answer (InvalidArgument: CSR"),
            "{other}"
        );
    }
}
