use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::control_plane::fixtures::{Ca, membership};
use crate::host::System;
use crate::host::machine::tests::{ONE, OTHER, set_machine_id};
use crate::xds::tests::resource;

/// A response of a real istiod to a VM.
const NAMES: &[u8] = include_bytes!("../../testdata/nds.pb");

fn member_with(root: &Ca) -> Membership {
    Membership {
        roots_pem: root.root_pem(),
        ..membership()
    }
}

fn vm() -> (tempfile::TempDir, Host, Membership) {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    set_machine_id(&host, ONE);
    (root, host, member_with(&Ca::new("mesh")))
}

fn snapshot() -> Snapshot {
    let of_type = |names: &[&str]| {
        let named = names
            .iter()
            .map(|name| ((*name).to_owned(), resource(name, "7", b"as it came")));
        named.collect::<Resources>()
    };
    let table = Frame(NAMES.into()).resources().unwrap();
    Snapshot(
        [
            ("cds".to_owned(), of_type(&["outbound|80||shop", "inbound|3550||"])),
            ("lds".to_owned(), of_type(&["virtualInbound"])),
            (NAME_TABLE.to_owned(), table.into_iter().collect()),
        ]
        .into(),
    )
}

fn refusal(file: Vec<u8>, here: &Member) -> String {
    format!("{:#}", Snapshot::parse(file.into(), here).unwrap_err())
}

#[test]
fn snapshot_is_read_as_it_was_written() {
    let (_root, host, membership) = vm();
    let member = Member::of(&host, &membership);
    let file = snapshot().encode(&member).unwrap();
    assert!(file.starts_with(br#"{"version":1,"machine":{"id":""#));
    assert_eq!(Snapshot::parse(file.into(), &member).unwrap(), snapshot());
    let table = crate::xds::name_table::parse(istio_api::frame::XdsProtocol::Delta, &snapshot().name_table());
    assert!(table.unwrap().unwrap().names.len() > 3);
}

#[test]
fn snapshot_of_another_machine_member_or_mesh_is_refused_and_why_is_told() {
    let (_root, host, membership) = vm();
    let member = Member::of(&host, &membership);
    let file = snapshot().encode(&member).unwrap();
    let refused = |membership: &Membership| refusal(file.clone(), &Member::of(&host, membership));
    let renamed = Membership {
        node_name: "other".to_owned(),
        ..membership.clone()
    };
    assert!(refused(&renamed).contains(" other "), "{}", refused(&renamed));
    let elsewhere = Membership {
        cluster_id: "other".to_owned(),
        ..membership.clone()
    };
    assert!(
        refused(&elsewhere).contains("and this VM is"),
        "{}",
        refused(&elsewhere)
    );
    let next = Ca::new("next");
    assert_eq!(refused(&member_with(&next)), "it is of a mesh with other roots");
    // A rotation of the roots, and another address of istiod, change nothing.
    let rotating = Membership {
        roots_pem: format!("{}{}", membership.roots_pem, next.root_pem()),
        discovery_address: "elsewhere:15012".to_owned(),
        ..membership.clone()
    };
    assert!(Snapshot::parse(file.clone().into(), &Member::of(&host, &rotating)).is_ok());
    set_machine_id(&host, OTHER);
    assert!(
        refused(&membership).contains("of another machine"),
        "{}",
        refused(&membership)
    );
}

#[test]
fn snapshot_of_another_format_is_refused_by_its_version() {
    let (_root, host, membership) = vm();
    let member = Member::of(&host, &membership);
    for version in [0, 2] {
        let file = format!("{{\"version\":{version},\"of\":\"the future\"}}\n...");
        let expected = format!("it is of version {version}, this agent reads 1");
        assert_eq!(refusal(file.into_bytes(), &member), expected);
    }
    assert_eq!(refusal(Vec::new(), &member), "it is damaged: it has no first line");
}

#[test]
fn snapshot_of_more_parts_than_their_memory_is_worth_is_not_unfolded() {
    let crowd = |type_url: &str| ResourcesOfType {
        type_url: type_url.to_owned(),
        resources: vec![Bytes::new(); MAX_PARTS / 2],
    };
    let body = Body {
        types: vec![crowd("a"), crowd("b")],
    };
    let error = Snapshot::decode(body.encode_to_vec().into()).unwrap_err();
    assert!(error.to_string().contains("more than"), "{error}");
}

/// Damages a file at a place and a bit by chance, a hundred times: each is refused.
fn expect_refused_a_hundred_times(damage: impl Fn(Vec<u8>, usize, u8) -> Vec<u8>) {
    let (_root, host, membership) = vm();
    let member = Member::of(&host, &membership);
    let file = snapshot().encode(&member).unwrap();
    let mut runner = TestRunner::new(Config::with_cases(100));
    let places = (any::<prop::sample::Index>(), 0u8..8);
    let ran = runner.run(&places, |(at, bit)| {
        let damaged = damage(file.clone(), at.index(file.len()), bit);
        let error = Snapshot::parse(damaged.into(), &member).unwrap_err();
        prop_assert!(error.to_string().starts_with("it is "), "{:#}", error);
        Ok(())
    });
    ran.unwrap();
}

#[test]
fn snapshot_with_any_bit_flipped_is_refused() {
    expect_refused_a_hundred_times(|mut file, at, bit| {
        file[at] ^= 1 << bit;
        file
    });
}

#[test]
fn snapshot_cut_anywhere_is_refused() {
    expect_refused_a_hundred_times(|mut file, at, _| {
        file.truncate(at);
        file
    });
}
