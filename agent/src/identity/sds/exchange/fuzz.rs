//! Properties of a stream, whatever Envoy asks for on it.

use istio_api::ads::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message;

use super::{MAX_NAME, MAX_NAMES, SdsRequest, Subscription};
use crate::bounds::Refusals;

/// Requests, each with its protocol in a byte and its length in two before it; an even byte is delta.
pub(crate) fn exchange(mut input: &[u8]) {
    let mut subscription = Subscription::new(Refusals::default());
    while let Some((&[protocol, high, low], rest)) = input.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        input = rest;
        let read = match protocol % 2 {
            0 => DeltaDiscoveryRequest::decode(message).map(SdsRequest::read),
            _ => DiscoveryRequest::decode(message).map(SdsRequest::read),
        };
        let Ok(read) = read else { return };
        subscription.read(read);
        let names: Vec<String> = subscription.entries.keys().cloned().collect();
        assert!(names.len() <= MAX_NAMES && names.iter().all(|name| name.len() <= MAX_NAME));
        for name in names {
            let secret = || Ok(Some("secret".into()));
            let _ = subscription.take(&name, secret());
            assert!(
                subscription.take(&name, secret()).is_none(),
                "what was sent is not sent again"
            );
        }
    }
}
