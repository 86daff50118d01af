//! Properties of tokens, of addresses and of istiod's versions, whatever they are.

use std::time::{Duration, SystemTime};

use super::token::Claims;
use super::version as versions;
use crate::facts::{HostPort, SpiffeId};

/// A token of a file, or of an API server.
pub(crate) fn jwt(text: &str) {
    let Ok(claims) = Claims::parse(text) else { return };
    let id = SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "vm".to_owned(),
    };
    for seconds in [0, 1_800_000_000, 253_402_300_799] {
        let _ = claims.flaw(&id, SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    }
}

/// `host:port` of a control plane.
pub(crate) fn address(text: &str) {
    if let Ok(HostPort { host, port }) = HostPort::parse(text) {
        assert!(text.contains(host) && text.ends_with(&port.to_string()) || text.contains('+') || text.contains(":0"));
    }
}

/// `control_plane.identifier` of a response.
pub(crate) fn version(text: &str) {
    if let Some(version) = versions::parse(text) {
        assert!(!version.is_empty() && version.len() <= 64 && version.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
