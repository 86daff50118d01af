//! Envoy's session: what it asked for on its stream and what it has, so that another peer can be told.
//!
//! In delta form that is every resource by name and version: a new istiod removes what is gone, and one that goes by
//! versions sends only what differs. In state-of-the-world form it is the last request of each type.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;

use bytes::Bytes;
use istio_api::frame::{AnyRequest, Changes, Frame, ResourceVersion, XdsProtocol};

/// All resources of a type (xDS protocol, "How the client specifies what resources to return").
pub(super) const WILDCARD: &str = "*";

/// Most bytes that names and versions may take: a large mesh has some megabytes of them. More is an istiod, or an Envoy,
/// that makes them up.
pub(super) const MAX_SIZE: usize = 32 << 20;
/// Most types of resources: Envoy has some twenty.
pub(super) const MAX_TYPES: usize = 100;
/// Bytes that an entry takes beside its text.
pub(super) const ENTRY: usize = 64;

/// Envoy's side of the conversation.
#[derive(Debug)]
pub(super) struct Session {
    protocol: XdsProtocol,
    /// Node of Envoy. Its first request has it, and so must the first one of every stream to istiod.
    node: Option<Bytes>,
    /// Subscriptions in the order of Envoy's first requests.
    types: Vec<Subscription>,
    /// True for an Envoy that had resources when it opened its stream; delta only.
    is_resumed: bool,
}

#[derive(Debug, Default)]
struct Subscription {
    type_url: String,
    wildcard: bool,
    names: BTreeSet<String>,
    /// Version that Envoy named last; state of the world only.
    version: String,
    /// Resources that Envoy has, or was sent; delta only.
    held: HeldResources,
}

/// Versions of resources by name, and the bytes that both take. `None` is a resource that Envoy was sent and never had
/// before: it may have it or not. Version "" is one that Envoy has in one version or another.
#[derive(Debug, Default)]
struct HeldResources {
    versions: HashMap<String, Option<String>>,
    size: usize,
}

impl HeldResources {
    fn insert(&mut self, name: String, version: Option<String>) {
        self.remove(&name);
        self.size += Self::size_of(&name, version.as_ref());
        self.versions.insert(name, version);
    }

    fn remove(&mut self, name: &str) {
        if let Some(version) = self.versions.remove(name) {
            self.size -= Self::size_of(name, version.as_ref());
        }
    }

    fn has(&self, name: &str) -> bool {
        self.versions.get(name).is_some_and(Option::is_some)
    }

    fn size_of(name: &str, version: Option<&String>) -> usize {
        ENTRY + name.len() + version.map_or(0, String::len)
    }

    /// Versions as an istiod is told them: it takes "" for no version of its own.
    fn told(&self) -> HashMap<String, String> {
        let told = |(name, version): (&String, &Option<String>)| (name.clone(), version.clone().unwrap_or_default());
        self.versions.iter().map(told).collect()
    }
}

impl Session {
    pub(super) fn new(protocol: XdsProtocol) -> Self {
        Self {
            protocol,
            node: None,
            types: Vec::new(),
            is_resumed: false,
        }
    }

    pub(super) fn node(&self) -> Option<&Bytes> {
        self.node.as_ref()
    }

    /// True for an Envoy that had resources when it opened its stream.
    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Names of the resources that Envoy has, by type, without those that it was sent and has never accepted; delta only.
    pub(super) fn held_names(&self) -> HashMap<String, HashSet<String>> {
        let has = |(name, version): (&String, &Option<String>)| version.is_some().then(|| name.clone());
        let names = |one: &Subscription| one.held.versions.iter().filter_map(has).collect();
        self.types
            .iter()
            .map(|one| (one.type_url.clone(), names(one)))
            .collect()
    }

    /// Takes note of a request; says whether it asks for anything else than the ones before.
    pub(super) fn note(&mut self, request: &AnyRequest) -> bool {
        if request.node.is_some() {
            self.node.clone_from(&request.node);
        }
        self.is_resumed |= !request.versions.is_empty();
        let protocol = self.protocol;
        let (subscription, first) = self.of_type(&request.type_url);
        match protocol {
            XdsProtocol::Delta => subscription.note_delta(request, first),
            XdsProtocol::Sotw => subscription.note_world(request, first),
        }
    }

    /// True when Envoy asks for this resource, by its name or with all others.
    pub(super) fn asks_for(&self, type_url: &str, name: &str) -> bool {
        let of_type = self.types.iter().find(|one| one.type_url == type_url);
        of_type.is_some_and(|one| one.asks_for(name))
    }

    /// Notes that Envoy was sent these; it may take them or not. What it has unsubscribed from meanwhile it drops.
    pub(super) fn sent(&mut self, type_url: &str, changes: &Changes) {
        let (subscription, _) = self.of_type(type_url);
        for resource in &changes.resources {
            if !subscription.asks_for(&resource.name) {
                continue;
            }
            let before = subscription.held.has(&resource.name).then(String::new);
            subscription.held.insert(resource.name.clone(), before);
        }
    }

    /// Notes that Envoy uses these, as far as it asks for them still.
    pub(super) fn accepted(&mut self, type_url: &str, changes: Changes) {
        let (subscription, _) = self.of_type(type_url);
        for ResourceVersion { name, version } in changes.resources {
            if !subscription.asks_for(&name) {
                continue;
            }
            subscription.held.insert(name, Some(version));
        }
        for name in changes.removed {
            subscription.held.remove(&name);
        }
    }

    /// True when it is more than any mesh has, and not to be kept.
    pub(super) fn is_overfull(&self) -> bool {
        self.types.len() > MAX_TYPES || self.types.iter().map(Subscription::size).sum::<usize>() > MAX_SIZE
    }

    /// The requests that tell an istiod all of it; none before Envoy's first.
    pub(super) fn opening(&self) -> Vec<(String, Frame)> {
        let mut node = self.node.clone();
        let asked = self.types.iter().filter(|one| one.wildcard || !one.names.is_empty());
        asked
            .map(|one| {
                let request = AnyRequest {
                    node: node.take(),
                    type_url: one.type_url.clone(),
                    names: one.names(),
                    version: one.version.clone(),
                    versions: one.held.told(),
                    ..AnyRequest::default()
                };
                (one.type_url.clone(), Frame::of_request(self.protocol, request))
            })
            .collect()
    }

    fn of_type(&mut self, type_url: &str) -> (&mut Subscription, bool) {
        let known = self.types.iter().position(|one| one.type_url == type_url);
        let index = known.unwrap_or_else(|| {
            self.types.push(Subscription {
                type_url: type_url.to_owned(),
                ..Subscription::default()
            });
            self.types.len() - 1
        });
        (&mut self.types[index], known.is_none())
    }
}

impl Subscription {
    fn asks_for(&self, name: &str) -> bool {
        self.wildcard || self.names.contains(name)
    }

    fn size(&self) -> usize {
        let names: usize = self.names.iter().map(|name| ENTRY + name.len()).sum();
        ENTRY + self.type_url.len() + names + self.held.size
    }

    fn note_delta(&mut self, request: &AnyRequest, first: bool) -> bool {
        self.wildcard |= first && request.names.is_empty();
        for name in &request.names {
            if name == WILDCARD {
                self.wildcard = true;
            } else {
                self.names.insert(name.clone());
            }
        }
        for name in &request.unsubscribe {
            self.wildcard &= name != WILDCARD;
            self.names.remove(name);
        }
        for name in request.unsubscribe.iter().filter(|_| !self.wildcard) {
            self.held.remove(name);
        }
        for (name, version) in &request.versions {
            self.held.insert(name.clone(), Some(version.clone()));
        }
        first || !request.names.is_empty() || !request.unsubscribe.is_empty()
    }

    fn note_world(&mut self, request: &AnyRequest, first: bool) -> bool {
        self.version.clone_from(&request.version);
        // No names at all mean all there are, unless there were some before.
        self.wildcard = request.names.is_empty() && (first || self.wildcard);
        let names = request.names.iter().cloned().collect();
        let before = mem::replace(&mut self.names, names);
        first || before != self.names
    }

    fn names(&self) -> Vec<String> {
        let all = (self.wildcard && !self.names.is_empty()).then(|| WILDCARD.to_owned());
        all.into_iter().chain(self.names.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(type_url: &str, names: &[&str], unsubscribe: &[&str]) -> AnyRequest {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        AnyRequest {
            type_url: type_url.to_owned(),
            names: owned(names),
            unsubscribe: owned(unsubscribe),
            ..AnyRequest::default()
        }
    }

    fn changes(resources: &[(&str, &str)], removed: &[&str]) -> Changes {
        let resource = |(name, version): &(&str, &str)| ResourceVersion {
            name: (*name).to_owned(),
            version: (*version).to_owned(),
        };
        Changes {
            resources: resources.iter().map(resource).collect(),
            removed: removed.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn opening(session: &Session) -> Vec<AnyRequest> {
        let frames = session.opening().into_iter();
        frames
            .map(|(_, frame)| frame.request(session.protocol).unwrap())
            .collect()
    }

    fn held(request: &AnyRequest) -> Vec<(&str, &str)> {
        let mut held: Vec<_> = request
            .versions
            .iter()
            .map(|(name, version)| (&**name, &**version))
            .collect();
        held.sort_unstable();
        held
    }

    #[test]
    fn delta_opening_says_who_asks_what_for_and_what_is_there() {
        let mut session = Session::new(XdsProtocol::Delta);
        assert!(session.opening().is_empty());
        let first = AnyRequest {
            node: Some(Bytes::from_static(b"\x0a\x02vm")),
            versions: [("kept".to_owned(), "1".to_owned())].into(),
            ..request("cds", &[], &[])
        };
        assert!(session.note(&first));
        assert!(session.note(&request("eds", &["a", "b"], &[])));
        session.sent("cds", &changes(&[("x", "1"), ("y", "1")], &[]));
        session.accepted("cds", changes(&[("x", "1"), ("y", "1")], &[]));
        assert!(
            !session.note(&request("cds", &[], &[])),
            "an acknowledgement asks for nothing"
        );
        // Refused, or not yet answered.
        session.sent("cds", &changes(&[("y", "2"), ("z", "1")], &["kept"]));
        session.sent("eds", &changes(&[("a", "7"), ("b", "7")], &[]));
        session.accepted("eds", changes(&[("a", "7"), ("b", "7")], &[]));
        assert!(session.note(&request("eds", &["c"], &["b"])));

        let opening = opening(&session);
        assert_eq!(opening.len(), 2);
        assert_eq!((&opening[0].node, &opening[1].node), (&first.node, &None));
        assert_eq!(
            (opening[0].names.len(), opening[1].names.join(" ").as_str()),
            (0, "a c")
        );
        assert_eq!(held(&opening[0]), [("kept", "1"), ("x", "1"), ("y", ""), ("z", "")]);
        let has = &session.held_names()["cds"];
        assert!(has.contains("y") && !has.contains("z"), "it has never accepted any z");
        assert_eq!(held(&opening[1]), [("a", "7")]);
    }

    #[test]
    fn opening_leaves_out_what_is_no_longer_asked_for_and_keeps_a_wildcard() {
        for protocol in [XdsProtocol::Delta, XdsProtocol::Sotw] {
            let mut session = Session::new(protocol);
            session.note(&request("eds", &["a"], &[]));
            let gone = match protocol {
                XdsProtocol::Delta => request("eds", &[], &["a"]),
                XdsProtocol::Sotw => request("eds", &[], &[]),
            };
            assert!(session.note(&gone));
            assert!(session.opening().is_empty(), "an empty list of names would ask for all");
            assert!(session.note(&request("eds", &["b"], &[])));
            assert_eq!(opening(&session)[0].names, ["b"]);
        }
        let mut session = Session::new(XdsProtocol::Delta);
        session.note(&request("cds", &[], &[]));
        session.note(&request("cds", &["on-demand"], &[]));
        assert_eq!(opening(&session)[0].names, ["*", "on-demand"]);
        session.note(&request("cds", &[], &["*"]));
        assert_eq!(opening(&session)[0].names, ["on-demand"]);
    }

    #[test]
    fn response_that_crosses_an_unsubscription_is_not_held() {
        let mut session = Session::new(XdsProtocol::Delta);
        session.note(&request("eds", &["a", "b"], &[]));
        let both = || changes(&[("a", "1"), ("b", "1")], &[]);
        session.sent("eds", &both());
        session.note(&request("eds", &[], &["a"]));
        session.accepted("eds", both());
        assert_eq!(held(&opening(&session)[0]), [("b", "1")]);
        session.sent("eds", &changes(&[("a", "2")], &[]));
        assert_eq!(held(&opening(&session)[0]), [("b", "1")]);
    }

    #[test]
    fn session_of_names_without_end_is_overfull_until_some_go() {
        let mut session = Session::new(XdsProtocol::Delta);
        session.note(&request("cds", &[], &[]));
        let long = "x".repeat(1 << 20);
        let many: Vec<String> = (0..33).map(|number| format!("{number}{long}")).collect();
        let all: Vec<(&str, &str)> = many.iter().map(|name| (&**name, "1")).collect();
        for half in all.chunks(17) {
            assert!(!session.is_overfull());
            session.sent("cds", &changes(half, &[]));
        }
        assert!(session.is_overfull());
        let gone: Vec<&str> = many.iter().map(String::as_str).collect();
        session.accepted("cds", changes(&[], &gone));
        assert!(!session.is_overfull());
        for number in 0..MAX_TYPES {
            session.note(&request(&number.to_string(), &[], &[]));
        }
        assert!(session.is_overfull(), "types without end are kept");
    }

    #[test]
    fn state_of_the_world_opening_is_the_last_request() {
        let mut session = Session::new(XdsProtocol::Sotw);
        let version = |version: &str, names: &[&str]| AnyRequest {
            version: version.to_owned(),
            response_nonce: "n".to_owned(),
            ..request("rds", names, &[])
        };
        assert!(session.note(&version("", &["a"])));
        assert!(session.note(&version("7", &["b", "a"])));
        assert!(!session.note(&version("8", &["a", "b"])), "the order means nothing");
        let opening = opening(&session);
        assert_eq!(
            (opening[0].names.join(" ").as_str(), opening[0].version.as_str()),
            ("a b", "8")
        );
        assert_eq!(opening[0].response_nonce, "");
    }

    proptest! {
        /// Whatever was said, an istiod that hears the opening knows what one that heard it all knows.
        #[test]
        fn opening_means_the_same_as_all_that_was_said(
            said in proptest::collection::vec((
                proptest::collection::vec("[a-d*]", 0..3),
                proptest::collection::vec("[a-d*]", 0..3),
            ), 1..8),
        ) {
            let mut session = Session::new(XdsProtocol::Delta);
            for (names, unsubscribe) in &said {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let unsubscribe: Vec<&str> = unsubscribe.iter().map(String::as_str).collect();
                session.note(&request("t", &names, &unsubscribe));
            }
            let mut again = Session::new(XdsProtocol::Delta);
            for request in opening(&session) {
                again.note(&request);
            }
            let meaning = |session: &Session| {
                let one = session.types.first();
                one.map(|one| (one.wildcard, one.names.clone())).unwrap_or_default()
            };
            prop_assert_eq!(meaning(&session), meaning(&again));
        }
    }
}
