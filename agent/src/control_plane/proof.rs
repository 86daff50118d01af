//! What a call proved itself with, and what a refusal of it means.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use tonic::{Code, Status};

use super::connect::spell_out;
use super::token::{Claims, NoClaims};
use crate::facts::Membership;

/// Longest part of a peer's words that is repeated in an error.
const MAX_WORDS: usize = 400;

/// What a call proved itself with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Proof {
    /// The VM's certificate, in TLS.
    Certificate,
    /// A token, in a header.
    Token {
        /// The file, or the source that made it.
        place: String,
        /// What the token says of itself.
        claims: Result<Claims, NoClaims>,
    },
    /// Nothing: no valid certificate, and the bundle has no token.
    Nothing,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate => f.write_str("its certificate"),
            Self::Token { place, .. } => write!(f, "a token from {place}"),
            Self::Nothing => f.write_str("nothing"),
        }
    }
}

impl Proof {
    /// Whether this proof wasn't good enough, so that another one may do better. TLS 1.3 refuses a certificate only
    /// after the handshake: the connection breaks under the first call.
    pub fn is_refused(&self, status: &Status) -> bool {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied => true,
            // Ended by this end.
            Code::Cancelled | Code::DeadlineExceeded => false,
            _ => *self == Self::Certificate && status.source().is_some(),
        }
    }

    /// What istiod's refusal means and what to do, in one line.
    pub fn explain(&self, status: &Status, membership: &Membership, now: SystemTime) -> String {
        let said = words(status);
        let code = status.code();
        let meaning = match code {
            Code::Unauthenticated => self.unauthenticated(membership, now),
            Code::PermissionDenied => format!("istiod knows the caller and won't let it be {}", membership.spiffe_id),
            Code::Unimplemented => "what answers there is no istiod: check the address".to_owned(),
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
            Self::Nothing => {
                "istiod wants a proof, and this VM has neither a valid certificate nor a token: put an istio-token into the bundle"
                    .to_owned()
            }
            Self::Token { place, claims } => {
                let problem = match claims {
                    Ok(claims) => claims.problem(&membership.spiffe_id, now),
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

/// What the peer said, or what happened to the connection: one line, of bounded length.
fn words(status: &Status) -> String {
    let text = spell_out(status.message().to_owned(), status.source());
    text.chars()
        .take(MAX_WORDS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::control_plane::fixtures::{jwt, membership};

    fn token(payload: &str) -> Proof {
        Proof::Token {
            place: "/bundle/istio-token".to_owned(),
            claims: Claims::parse(&jwt(payload)),
        }
    }

    #[test]
    fn each_refusal_names_its_cause() {
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
            (Proof::Nothing, refused("no"), "neither a valid certificate nor a token"),
            (
                Proof::Certificate,
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
        for (proof, status, expected) in cases {
            let text = proof.explain(&status, &membership(), UNIX_EPOCH + Duration::from_secs(2000));
            assert!(text.contains(expected), "{status:?}: {text}");
        }
        let long = Proof::Nothing.explain(&Status::internal("x".repeat(10_000)), &membership(), UNIX_EPOCH);
        assert!(long.len() < 500, "{}", long.len());
    }
}
