use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ads;

fn status() -> impl Strategy<Value = Option<rpc::Status>> {
    proptest::option::of((any::<i32>(), ".*").prop_map(|(code, message)| rpc::Status {
        code,
        message,
        details: Vec::new(),
    }))
}

fn resources() -> impl Strategy<Value = Vec<rpc::Any>> {
    let resource = (".*", vec(any::<u8>(), 0..64)).prop_map(|(type_url, value)| rpc::Any {
        type_url,
        value: value.into(),
    });
    vec(resource, 0..4)
}

#[test]
fn frame_of_many_parts_is_not_unfolded_however_small() {
    // An empty resource, an empty name: two bytes each.
    let crowd = |field: u8| Frame([field, 0].repeat(MAX_PARTS + 1).into());
    assert!(matches!(crowd(0x12).changes(), Err(FrameError::Crowded)));
    assert!(matches!(
        crowd(0x1a).request(XdsProtocol::Delta),
        Err(FrameError::Crowded)
    ));
    assert!(matches!(
        crowd(0x1a).request(XdsProtocol::Sotw),
        Err(FrameError::Crowded)
    ));
    assert!(crowd(0x12).response().is_ok(), "only the last one is looked at");
}

proptest! {
    #[test]
    fn request_is_seen_as_prost_wrote_it(
        type_url in ".*",
        response_nonce in ".*",
        error_detail in status(),
        names in vec(".*", 0..4),
    ) {
        let node = ads::Node { id: "sidecar".to_owned(), ..Default::default() };
        let sotw = ads::DiscoveryRequest {
            version_info: "7".to_owned(),
            node: Some(node.clone()),
            resource_names: names.clone(),
            type_url: type_url.clone(),
            response_nonce: response_nonce.clone(),
            error_detail: error_detail.clone(),
        };
        let seen = Frame::of(&sotw).request(XdsProtocol::Sotw).unwrap();
        let mut expected = AnyRequest {
            node: Some(node.encode_to_vec().into()),
            type_url: type_url.clone(),
            names: names.clone(),
            version: "7".to_owned(),
            response_nonce: response_nonce.clone(),
            error_detail: error_detail.clone(),
            ..AnyRequest::default()
        };
        prop_assert_eq!(&seen, &expected);
        prop_assert_eq!(ads::DiscoveryRequest::decode(Frame::of_request(XdsProtocol::Sotw, seen).0).unwrap(), sotw);
        let versions: HashMap<String, String> = names.iter().map(|name| (name.clone(), "1".to_owned())).collect();
        let delta = ads::DeltaDiscoveryRequest {
            node: Some(node),
            type_url,
            resource_names_subscribe: names.clone(),
            resource_names_unsubscribe: names.clone(),
            initial_resource_versions: versions.clone().into_iter().collect(),
            response_nonce,
            error_detail,
        };
        (expected.unsubscribe, expected.versions, expected.version) = (names, versions, String::new());
        let seen = Frame::of(&delta).request(XdsProtocol::Delta).unwrap();
        prop_assert_eq!(&seen, &expected);
        prop_assert_eq!(ads::DeltaDiscoveryRequest::decode(Frame::of_request(XdsProtocol::Delta, seen).0).unwrap(), delta);
    }

    #[test]
    fn response_is_seen_as_prost_wrote_it(
        type_url in ".*",
        nonce in ".*",
        version in ".*",
        resources in resources(),
    ) {
        let head = ResponseHead {
            type_url: type_url.clone(),
            nonce: nonce.clone(),
            version: version.clone(),
            has_resources: !resources.is_empty(),
        };
        let sotw = ads::DiscoveryResponse {
            version_info: version.clone(),
            resources: resources.clone(),
            type_url: type_url.clone(),
            nonce: nonce.clone(),
            control_plane: None,
        };
        prop_assert_eq!(&Frame::of(&sotw).response().unwrap(), &head);
        let delta = ads::DeltaDiscoveryResponse {
            system_version_info: version,
            resources: resources
                .into_iter()
                .map(|resource| ads::Resource {
                    version: "1".to_owned(),
                    resource: Some(resource),
                    name: "a".to_owned(),
                })
                .collect(),
            type_url,
            nonce,
            removed_resources: vec!["b".to_owned()],
        };
        prop_assert_eq!(&Frame::of(&delta).response().unwrap(), &head);
        let frame = Frame::of(&delta);
        let changes = frame.changes().unwrap();
        let resource = |resource: ads::Resource| ResourceVersion { name: resource.name, version: resource.version };
        let named = delta.resources.into_iter().map(resource).collect();
        prop_assert_eq!(&changes, &Changes { resources: named, removed: delta.removed_resources });
        let (names, kept): (Vec<_>, Vec<_>) = frame.resources().unwrap().into_iter().unzip();
        prop_assert!(names.iter().all(|name| name == "a"));
        let again = Frame::of_resources(&head.type_url, &head.nonce, kept, changes.removed.clone());
        let unversioned = ads::DeltaDiscoveryResponse {
            system_version_info: String::new(),
            ..ads::DeltaDiscoveryResponse::decode(frame.0).unwrap()
        };
        prop_assert_eq!(again, Frame::of(&unversioned));
    }

    #[test]
    fn fields_are_those_that_prost_wrote(resources in resources(), nonce in "[a-z]{1,9}", version in "[a-z]{0,9}") {
        let message = ads::DiscoveryResponse {
            version_info: version.clone(),
            resources: resources.clone(),
            nonce: nonce.clone(),
            ..Default::default()
        };
        let fields: Result<Vec<_>, _> = Fields(message.encode_to_vec().into()).collect();
        let mut expected = Vec::new();
        if !version.is_empty() {
            expected.push((1, Bytes::from(version)));
        }
        expected.extend(resources.iter().map(|any| (2, any.encode_to_vec().into())));
        expected.push((5, nonce.into()));
        prop_assert_eq!(fields.unwrap(), expected);
    }

    #[test]
    fn frame_of_any_bytes_is_looked_at_without_a_panic(bytes in vec(any::<u8>(), 0..256)) {
        let frame = Frame(bytes.into());
        let _ = frame.request(XdsProtocol::Sotw);
        let _ = frame.request(XdsProtocol::Delta);
        let _ = frame.response();
        let _ = frame.changes();
        let _ = frame.resources();
        let _ = Fields(frame.0).count();
    }

    #[test]
    fn frame_cut_short_is_an_error_or_a_shorter_message(cut in 0usize..40) {
        let frame = Frame::of(&ads::DiscoveryRequest {
            type_url: "type.googleapis.com/x".to_owned(),
            response_nonce: "nonce".to_owned(),
            ..Default::default()
        });
        if let Ok(head) = Frame(frame.0.slice(..cut.min(frame.0.len()))).request(XdsProtocol::Sotw) {
            prop_assert!(head.type_url.is_empty() || head.type_url == "type.googleapis.com/x");
        }
    }
}
