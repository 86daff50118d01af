//! A bearer token.

use anyhow::{Result, bail};

use crate::facts::Secret;

/// A bearer token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Bearer(Secret);

impl Bearer {
    /// A token that came from `place`, surrounding blanks aside.
    pub(crate) fn new(place: &str, text: &str) -> Result<Self> {
        let text = text.trim();
        if text.is_empty() {
            bail!("{place} is empty: put a bearer token for the API server there");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{place} holds no bearer token: there are blanks or control characters in it");
        }
        Ok(Self(Secret::new(text)))
    }

    /// The token, for the `authorization` header, and to read its claims.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }
}
