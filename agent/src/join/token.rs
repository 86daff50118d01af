//! istio-token: the shape of a JWT. Whether it is for us and still good is `identity`'s business.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::origin::{ParseError, Position};

/// Kubernetes' tokens have about a kilobyte.
const MAX_BYTES: usize = 64 << 10;

/// Checks the shape; the message never shows the token.
pub(super) fn check(text: &str) -> Result<(), ParseError> {
    let token = text.trim();
    if token.is_empty() {
        return Err(ParseError::at(
            Position::Column(1, 1),
            "is empty: make a new bundle, or remove the file on a VM that has its certificate",
        ));
    }
    if token.len() > MAX_BYTES {
        return Err(ParseError::at(
            Position::Column(1, 1),
            format!(
                "is {} bytes long, a token has at most {MAX_BYTES}: it is another file",
                token.len()
            ),
        ));
    }
    let is_part = |part: &str| {
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !part.is_empty() && part.bytes().all(base64url)
    };
    if token.split('.').count() != 3 || !token.split('.').all(is_part) {
        return Err(ParseError::at(
            Position::Column(1, 1),
            "is not a JWT (three base64url parts with dots between): it is truncated, or is another file",
        ));
    }
    match token.split('.').nth(1).and_then(wrong_claim) {
        Some(claim) => Err(ParseError::at(
            Position::Column(1, 1),
            format!("its claim {claim:?} is of another type than a JWT has there: make a new bundle"),
        )),
        None => Ok(()),
    }
}

/// The claim of a payload that is of another type than RFC 7519, section 4.1, has it. What can't be read is istiod's to judge.
fn wrong_claim(payload: &str) -> Option<&'static str> {
    let bytes = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload).ok()?);
    let claims: Value = serde_json::from_slice(&bytes).ok()?;
    let is_texts = |value: &Value| value.as_array().is_some_and(|all| all.iter().all(Value::is_string));
    let is_wrong = |claim: &&str| match (*claim, &claims[*claim]) {
        (_, Value::Null) => false,
        ("aud", value) => !value.is_string() && !is_texts(value),
        ("sub", value) => !value.is_string(),
        (_, value) => !value.is_number(),
    };
    ["aud", "exp", "nbf", "sub"].into_iter().find(is_wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::jwt;

    #[test]
    fn token_of_another_shape_than_a_jwts_is_refused() {
        check("aaa.b-b.c_c\n").unwrap();
        for text in ["", " \n", "aaa.bbb", "aaa.bbb.", "a.b.c.d", "a.b c.d", "-----BEGIN"] {
            let error = check(text).unwrap_err();
            assert!(error.problem.starts_with("is "), "{text:?}: {error:?}");
        }
        assert!(check(&format!("a.b.{}", "c".repeat(MAX_BYTES))).is_err());
    }

    #[test]
    fn claim_of_another_type_is_named() {
        let said = |payload: &str| check(&jwt(payload)).map_err(|error| error.problem);
        for fine in [
            r#"{"aud":"a","exp":1.5,"sub":null}"#,
            r#"{"aud":["a","b"],"nbf":1}"#,
            "[]",
            "no JSON",
        ] {
            assert_eq!(said(fine), Ok(()), "{fine}");
        }
        for (payload, claim) in [
            (r#"{"aud":5}"#, "aud"),
            (r#"{"aud":["a",5]}"#, "aud"),
            (r#"{"aud":"a","exp":"soon"}"#, "exp"),
            (r#"{"nbf":"now"}"#, "nbf"),
            (r#"{"sub":{}}"#, "sub"),
        ] {
            let problem = said(payload).unwrap_err();
            assert!(
                problem.starts_with(&format!("its claim {claim:?} is of another type")),
                "{payload}: {problem}"
            );
        }
    }
}
