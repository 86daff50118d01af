//! OAuth 2.0 access tokens, as the metadata server hands them out.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::facts::Secret;

/// The metadata server hands out the same token until five minutes before it expires; a new one is there by then.
const MARGIN: Duration = Duration::from_secs(4 * 60);
/// Google's tokens live an hour, twelve at most.
const MAX_LIFE: Duration = Duration::from_secs(12 * 60 * 60);

/// A bearer token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct AccessToken(Secret);

impl AccessToken {
    /// The token, for an `authorization` header only.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: Secret,
    expires_in: u64,
}

/// The token, and for how long it may be used again. Errors never quote it.
pub(super) fn parse(text: &str) -> Result<(AccessToken, Duration)> {
    let answer: Answer = serde_json::from_str(text)
        .map_err(|error| error.classify())
        .map_err(|kind| anyhow::anyhow!("its JSON has a {kind:?} error"))?;
    let token = answer.access_token.expose().trim();
    ensure!(!token.is_empty(), "access_token is empty");
    ensure!(
        token.bytes().all(|byte| byte.is_ascii_graphic()),
        "access_token holds what no token holds"
    );
    let life = Duration::from_secs(answer.expires_in).min(MAX_LIFE);
    Ok((AccessToken(Secret::new(token)), life.saturating_sub(MARGIN)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_is_kept_until_shortly_before_it_expires_and_never_shown() {
        let (token, life) =
            parse(r#"{"access_token":"ya29.c.secret","expires_in":3599,"token_type":"Bearer"}"#).unwrap();
        assert_eq!(life, Duration::from_secs(3359));
        assert_eq!(token.expose(), "ya29.c.secret");
        assert!(!format!("{token:?}").contains("secret"));
        let (_, life) = parse(r#"{"access_token":"t","expires_in":100}"#).unwrap();
        assert_eq!(life, Duration::ZERO);
    }

    #[test]
    fn errors_do_not_quote_the_token() {
        for text in [
            r#"{"access_token":"secret","expires_in":"secret"}"#,
            r#"{"access_token":"secret"#,
            r#"{"access_token":"secret\nsecret","expires_in":1}"#,
            r#"{"access_token":" ","expires_in":1}"#,
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(!error.contains("secret"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn access_token_of_any_text_is_read_without_a_panic(text in r#"\{"access_token":"\PC*","expires_in":[0-9]{1,25}\}|\PC*"#) {
            if let Ok((_, life)) = parse(&text) {
                prop_assert!(life < MAX_LIFE);
            }
        }
    }
}
