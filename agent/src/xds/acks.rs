//! ACK and NACK: which of a peer's responses Envoy refused on a stream.

use std::collections::HashMap;

use istio_api::frame::AnyRequest;

use crate::bounds::bounded_words;

/// Longest part of Envoy's words that is kept, in characters; it may quote a whole configuration.
const MAX_WORDS: usize = 2000;

/// Envoy's verdict on the response that a request answers.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Ack {
    /// Envoy uses it.
    Ack,
    /// Envoy keeps what it had, for this reason.
    Nack(String),
}

/// Nonce of the last response that was refused, by type.
#[derive(Debug, Default)]
pub(super) struct AckTracker(HashMap<String, String>);

impl AckTracker {
    /// The ACK or NACK in a request; `None` when it answers no response, or names again the one that was refused last, as a
    /// change of subscription does.
    pub(super) fn read(&mut self, request: &AnyRequest) -> Option<Ack> {
        if let Some(error) = &request.error_detail {
            self.0.insert(request.type_url.clone(), request.response_nonce.clone());
            return Some(Ack::Nack(one_line(&error.message)));
        }
        if request.response_nonce.is_empty() || self.0.get(&request.type_url) == Some(&request.response_nonce) {
            return None;
        }
        self.0.remove(&request.type_url);
        Some(Ack::Ack)
    }
}

/// Envoy puts each resource that it refused on a line of its own.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    bounded_words(&lines.join("; "), MAX_WORDS)
}

#[cfg(test)]
mod tests {
    use istio_api::rpc;

    use super::*;

    fn request(nonce: &str, error: Option<&str>) -> AnyRequest {
        AnyRequest {
            type_url: "x".to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: error.map(|message| rpc::Status {
                message: message.to_owned(),
                ..Default::default()
            }),
            ..AnyRequest::default()
        }
    }

    #[test]
    fn ack_is_only_an_answer_to_a_later_response() {
        let mut acks = AckTracker::default();
        assert_eq!(acks.read(&request("", None)), None);
        assert_eq!(acks.read(&request("1", None)), Some(Ack::Ack));
        let nack = Some(Ack::Nack("bad".to_owned()));
        assert_eq!(acks.read(&request("2", Some("bad"))), nack);
        assert_eq!(acks.read(&request("2", None)), None);
        assert_eq!(acks.read(&request("3", None)), Some(Ack::Ack));
    }

    #[test]
    fn nack_is_one_line_of_bounded_length() {
        let nack = AckTracker::default().read(&request("1", Some("a: bad\nb: worse\n")));
        assert_eq!(nack, Some(Ack::Nack("a: bad; b: worse".to_owned())));
        let long = "é".repeat(10_000);
        let Some(Ack::Nack(message)) = AckTracker::default().read(&request("1", Some(&long))) else {
            panic!("no NACK")
        };
        assert_eq!(message.chars().count(), MAX_WORDS);
    }
}
