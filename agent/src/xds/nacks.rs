//! Which of istiod's responses Envoy refused on a stream.

use std::collections::HashMap;

use istio_api::frame::AnyRequest;

/// Longest part of Envoy's words that is kept; it may quote a whole configuration.
const MAX_WORDS: usize = 2000;

/// What a request says of the response it answers.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Envoy uses it.
    Accepted,
    /// Envoy keeps what it had, for this reason.
    Refused(String),
}

/// Nonce of the last response that was refused, by type.
#[derive(Debug, Default)]
pub(super) struct Nacks(HashMap<String, String>);

impl Nacks {
    /// The verdict in a request; `None` when it is about no response, or about one that was judged before: a
    /// change of subscription names the last nonce, too.
    pub(super) fn judge(&mut self, head: &AnyRequest) -> Option<Verdict> {
        if let Some(error) = &head.error_detail {
            self.0.insert(head.type_url.clone(), head.response_nonce.clone());
            return Some(Verdict::Refused(one_line(&error.message)));
        }
        if head.response_nonce.is_empty() || self.0.get(&head.type_url) == Some(&head.response_nonce) {
            return None;
        }
        self.0.remove(&head.type_url);
        Some(Verdict::Accepted)
    }
}

/// Envoy puts each resource that it refused on a line of its own.
fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines.join("; ").chars().take(MAX_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use istio_api::rpc;

    use super::*;

    fn head(nonce: &str, error: Option<&str>) -> AnyRequest {
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
    fn only_the_answer_to_a_later_response_is_an_acceptance() {
        let mut nacks = Nacks::default();
        assert_eq!(nacks.judge(&head("", None)), None);
        assert_eq!(nacks.judge(&head("1", None)), Some(Verdict::Accepted));
        let refused = Some(Verdict::Refused("bad".to_owned()));
        assert_eq!(nacks.judge(&head("2", Some("bad"))), refused);
        assert_eq!(nacks.judge(&head("2", None)), None);
        assert_eq!(nacks.judge(&head("3", None)), Some(Verdict::Accepted));
    }

    #[test]
    fn words_are_one_line_of_bounded_length() {
        let verdict = Nacks::default().judge(&head("1", Some("a: bad\nb: worse\n")));
        assert_eq!(verdict, Some(Verdict::Refused("a: bad; b: worse".to_owned())));
        let long = "é".repeat(10_000);
        let Some(Verdict::Refused(message)) = Nacks::default().judge(&head("1", Some(&long))) else {
            panic!("no refusal")
        };
        assert_eq!(message.chars().count(), MAX_WORDS);
    }
}
