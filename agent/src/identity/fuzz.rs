//! Properties of certificates and of the identities in them, whatever the CA, Envoy or the disk say.

use std::time::{Duration, SystemTime};

use super::{ca, certificate, csr, store};
use crate::facts::{PrivateKey, SpiffeId};
use crate::fuzz::MEMBERSHIP;
use crate::host::Machine;

pub(crate) use super::sds::fuzz::{exchange, secret_name};

/// A time at which the certificates of the corpus are valid, since the epoch.
const NOW: Duration = Duration::from_secs(1_800_000_000);

/// The VM's key, and the certificates of an answer to its request.
pub(crate) fn ca_answer(input: &str) {
    let mut parts = input.split('\0').map(str::to_owned);
    let request = csr::Request {
        key: PrivateKey::new(parts.next().unwrap_or_default()),
        csr: String::new(),
    };
    let chain: Vec<String> = parts.collect();
    let now = SystemTime::UNIX_EPOCH + NOW;
    if let Ok(accepted) = ca::accept(request, &chain, &MEMBERSHIP, now) {
        assert!(accepted.spiffe_id == MEMBERSHIP.spiffe_id && accepted.valid_at(now));
        assert!(
            certificate::contains(&accepted.roots_pem, &MEMBERSHIP.roots_pem),
            "the bundle's roots stay"
        );
    }
}

/// A stored identity.
pub(crate) fn document(text: &str) {
    if let Ok(stored) = store::parse(text, &Machine::default()) {
        assert!(!format!("{stored:?}").contains("PRIVATE KEY"));
    }
}

/// An identity in a certificate.
pub(crate) fn spiffe_id(text: &str) {
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.to_string(), text, "it is written as it was read");
    }
}
