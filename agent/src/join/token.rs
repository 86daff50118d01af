//! istio-token: the shape of a JWT. Whether it is for us and still good is `identity`'s business.

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
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_of_another_shape_than_a_jwts_is_refused() {
        check("aaa.b-b.c_c\n").unwrap();
        for text in ["", " \n", "aaa.bbb", "aaa.bbb.", "a.b.c.d", "a.b c.d", "-----BEGIN"] {
            let error = check(text).unwrap_err();
            assert!(error.problem.starts_with("is "), "{text:?}: {error:?}");
        }
        assert!(check(&format!("a.b.{}", "c".repeat(MAX_BYTES))).is_err());
    }
}
