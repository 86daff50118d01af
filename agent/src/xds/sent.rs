//! Responses of one peer that went to Envoy: a request answers one of them by its nonce, or another peer's.

use std::collections::{HashMap, VecDeque};

use istio_api::frame::{AnyRequest, Changes, Frame};

use super::session::{ENTRY, MAX_SIZE, MAX_TYPES};

/// Responses by type, from the last one that Envoy answered on.
#[derive(Debug, Default)]
pub(super) struct SentResponses {
    by_type: HashMap<String, VecDeque<Sent>>,
    /// Bytes that all of them take, without the whole responses.
    size: usize,
    /// Bytes of the whole responses.
    whole_size: usize,
}

#[derive(Debug)]
struct Sent {
    nonce: String,
    /// Delta only, and until Envoy has answered.
    changes: Option<Changes>,
    /// The whole response, until Envoy has answered: what is in it may be kept.
    whole: Option<Frame>,
}

/// A response that Envoy has answered.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Settled {
    /// The changes in it; delta only, and once only.
    pub(super) changes: Option<Changes>,
    /// All of it, where that was held.
    pub(super) whole: Option<Frame>,
}

impl Sent {
    fn size(&self) -> usize {
        let changes = self.changes.as_ref();
        let resources = changes.into_iter().flat_map(|changes| &changes.resources);
        let removed = changes.into_iter().flat_map(|changes| &changes.removed);
        ENTRY
            + self.nonce.len()
            + resources
                .map(|resource| ENTRY + resource.name.len() + resource.version.len())
                .sum::<usize>()
            + removed.map(|name| ENTRY + name.len()).sum::<usize>()
    }

    fn whole_size(&self) -> usize {
        self.whole.as_ref().map_or(0, |whole| whole.0.len())
    }
}

impl SentResponses {
    /// Notes a response, which Envoy will answer with its nonce.
    pub(super) fn push(&mut self, type_url: String, nonce: String, changes: Option<Changes>, whole: Option<Frame>) {
        let sent = Sent { nonce, changes, whole };
        self.size += sent.size();
        self.whole_size += sent.whole_size();
        self.by_type.entry(type_url).or_default().push_back(sent);
    }

    /// Bytes of the whole responses that Envoy has not answered.
    pub(super) fn whole_size(&self) -> usize {
        self.whole_size
    }

    /// True when Envoy has answered to so little that no more is to be kept for it.
    pub(super) fn is_overfull(&self) -> bool {
        self.size > MAX_SIZE || self.by_type.len() > MAX_TYPES
    }

    /// True when it is one of these that the request answers.
    pub(super) fn is_answered_by(&self, request: &AnyRequest) -> bool {
        let sent = self.by_type.get(&request.type_url);
        sent.is_some_and(|sent| sent.iter().any(|one| one.nonce == request.response_nonce))
    }

    /// The response that the request answers.
    pub(super) fn settle(&mut self, request: &AnyRequest) -> Settled {
        self.answered(request).unwrap_or_default()
    }

    fn answered(&mut self, request: &AnyRequest) -> Option<Settled> {
        let sent = self.by_type.get_mut(&request.type_url)?;
        let index = sent.iter().position(|one| one.nonce == request.response_nonce)?;
        // Envoy answers in order, and names the last nonce again with every change of a subscription.
        for passed_over in sent.drain(..index) {
            self.size -= passed_over.size();
            self.whole_size -= passed_over.whole_size();
        }
        let answered = sent.front_mut()?;
        self.size -= answered.size();
        self.whole_size -= answered.whole_size();
        let settled = Settled {
            changes: answered.changes.take(),
            whole: answered.whole.take(),
        };
        self.size += answered.size();
        Some(settled)
    }
}

#[cfg(test)]
mod tests {
    use istio_api::frame::ResourceVersion;

    use super::*;

    fn answer(nonce: &str) -> AnyRequest {
        AnyRequest {
            type_url: "cds".to_owned(),
            response_nonce: nonce.to_owned(),
            ..AnyRequest::default()
        }
    }

    fn changes(name: &str) -> Changes {
        let resource = ResourceVersion {
            name: name.to_owned(),
            version: "1".to_owned(),
        };
        Changes {
            resources: vec![resource],
            removed: Vec::new(),
        }
    }

    #[test]
    fn sent_response_is_settled_once_and_with_those_before_it() {
        let mut sent = SentResponses::default();
        for nonce in ["1", "2", "3"] {
            let whole = Frame(nonce.to_owned().into());
            sent.push("cds".to_owned(), nonce.to_owned(), Some(changes(nonce)), Some(whole));
        }
        assert!(sent.is_answered_by(&answer("1")) && !sent.is_answered_by(&answer("of another peer")));
        assert_eq!(sent.whole_size(), 3);
        let settled = |nonce: &str| Settled {
            changes: Some(changes(nonce)),
            whole: Some(Frame(nonce.to_owned().into())),
        };
        assert_eq!(sent.settle(&answer("2")), settled("2"));
        assert!(
            sent.is_answered_by(&answer("2")),
            "a change of subscription names it again"
        );
        assert_eq!(sent.settle(&answer("2")), Settled::default());
        assert!(!sent.is_answered_by(&answer("1")));
        assert_eq!(sent.settle(&answer("3")), settled("3"));
        assert_eq!(
            (sent.size, sent.whole_size),
            (ENTRY + 1, 0),
            "a nonce is all that is left"
        );
    }

    #[test]
    fn sent_responses_that_nobody_answers_are_too_many() {
        let mut sent = SentResponses::default();
        for number in 0..=MAX_TYPES {
            assert!(!sent.is_overfull());
            sent.push(number.to_string(), String::new(), None, None);
        }
        assert!(sent.is_overfull());
        let mut sent = SentResponses::default();
        sent.push(
            "cds".to_owned(),
            "1".to_owned(),
            Some(changes(&"x".repeat(MAX_SIZE))),
            None,
        );
        assert!(sent.is_overfull());
        sent.settle(&answer("1"));
        assert!(!sent.is_overfull());
    }
}
