//! The call that is asked about. Pure.

use serde::{Deserialize, Serialize};

use super::access_log::LastError;
use super::target::Target;

/// The call, and what is told of the caller.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Question {
    pub(super) target: Target,
    /// User and group of the calling program, by number.
    pub(super) owner: Option<(u32, u32)>,
    /// The caller's identity, `spiffe://…`.
    pub(super) principal: Option<String>,
    /// Path of a request to this VM, where it is told.
    pub(super) path: Option<String>,
    /// Headers of the request, where they are told.
    pub(super) headers: Vec<(String, String)>,
    /// True where the caller is known to speak no TLS.
    pub(super) plaintext: bool,
    /// The failure in Envoy's access log that the question comes from.
    pub(super) error: Option<LastError>,
}

/// Reads NAME=VALUE.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}
