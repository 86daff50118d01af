//! A bearer token.

use crate::facts::Secret;

/// A text in the place of a bearer token that is none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoBearer(String);

/// A bearer token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Bearer(Secret);

impl Bearer {
    /// A token that came from `place`, surrounding blanks aside.
    pub(crate) fn new(place: &str, text: &str) -> Result<Self, NoBearer> {
        let text = text.trim();
        if text.is_empty() {
            return Err(NoBearer(format!(
                "{place} is empty: put a bearer token for the API server there"
            )));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(NoBearer(format!(
                "{place} holds no bearer token: there are blanks or control characters in it"
            )));
        }
        Ok(Self(Secret::new(text)))
    }

    /// The token, for the `authorization` header, and to read its claims.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}
