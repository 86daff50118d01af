//! Properties of secrets' names, whatever Envoy asks for.

use super::secret::look_up;
use crate::host::{Host, Owner, System};

pub(crate) use super::exchange::fuzz::exchange;

/// The name of a secret, on a VM without files and without a certificate.
pub(crate) fn secret_name(name: &str) {
    let host = Host::new("/nonexistent", System);
    let found = look_up(name, None, &host, Owner { uid: 1337, gid: 1337 });
    assert!(!matches!(found, Ok(Some(_))), "there is no secret");
}
