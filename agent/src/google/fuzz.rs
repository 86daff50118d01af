//! Properties of the metadata server's answers, whoever gives them.

use super::{access_token as tokens, strings};

/// A token for Google's APIs.
pub(crate) fn access_token(text: &str) {
    if let Ok((token, life)) = tokens::parse(text) {
        assert!(token.expose().bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(life.as_secs() <= 12 * 60 * 60);
    }
}

/// Attributes of an instance or a project.
pub(crate) fn attributes(text: &str) {
    let _ = strings(text);
}
