use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::facts::HostEntry;
use crate::host::System;
use crate::host::machine::tests::{ONE, OTHER, set_machine_id};
use crate::join::bundle::Origins;
use crate::join::origin::{Origin, Position};

/// The key of agent/tests/golden/signed.
const KEY: &str = "RWSYyLgjTU7yeFGbccI5/yKuG6Mht/69Nr95OufS50arxuNAwv2COlgh";

fn bundle() -> Bundle {
    Bundle {
        env: [("A".to_owned(), "it's\n\u{85}\"".to_owned())].into(),
        proxy_config: serde_json::from_str(r#"{"a": [0.30000000000000004, null], "proxyMetadata": {"b": "c"}}"#)
            .unwrap(),
        roots: "text of root-cert.pem".to_owned(),
        hosts: vec![HostEntry {
            ip: [10, 0, 0, 2].into(),
            names: vec!["istiod".to_owned()],
        }],
        token: None,
        unheeded: Vec::new(),
        signed: None,
        origins: Origins {
            env: Origin::new("cluster.env").with_lines([("A".to_owned(), Position::Line(1))].into()),
            ..Origins::default()
        },
    }
}

fn host() -> (tempfile::TempDir, Host) {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    (root, host)
}

const PATH: &str = "/membership.json";

fn loaded(host: &Host, source: &str) -> Result<Option<Bundle>> {
    load(host, Path::new(PATH), source, None)
}

#[test]
fn cache_gives_the_same_source_its_bundle_back_and_no_token() {
    let (_root, host) = host();
    let path = Path::new(PATH);
    assert!(loaded(&host, "a").unwrap().is_none());
    let with_token = Bundle {
        token: Some("/secret".into()),
        ..bundle()
    };
    save(&host, path, "a", &with_token).unwrap();
    assert!(!host.text(path).contains("secret"));
    let permissions = std::fs::metadata(host.real_path(path)).unwrap().permissions();
    assert_eq!(permissions.mode() & 0o777, 0o600);
    assert_eq!(loaded(&host, "a").unwrap(), Some(bundle()));
    assert!(loaded(&host, "b").unwrap().is_none());
}

#[test]
fn cache_on_a_copied_disk_is_not_used() {
    let (_root, host) = host();
    let path = Path::new(PATH);
    save(&host, path, "a", &bundle()).unwrap();
    set_machine_id(&host, ONE);
    loaded(&host, "a").unwrap().unwrap();
    save(&host, path, "a", &bundle()).unwrap();
    set_machine_id(&host, OTHER);
    assert!(loaded(&host, "a").unwrap().is_none());
    set_machine_id(&host, "uninitialized\n");
    loaded(&host, "a").unwrap().unwrap();
}

#[test]
fn cache_that_is_damaged_is_named() {
    let (_root, host) = host();
    let path = Path::new(PATH);
    host.write(path, "{", 0o600, None).unwrap();
    let error = loaded(&host, "a").unwrap_err().to_string();
    assert!(error.starts_with("/membership.json is damaged: EOF"), "{error}");
    save(&host, path, "a", &bundle()).unwrap();
    let newer = host.text(path).replace("\"version\": 2", "\"version\": 3");
    host.write(path, &newer, 0o600, None).unwrap();
    let error = loaded(&host, "a").unwrap_err().to_string();
    assert!(error.contains("is of version 3, this agent reads 1 to 2"), "{error}");
}

/// Written by an agent whose cache had version 1.
const V1_KUBERNETES: &str = include_str!("../../../tests/golden/membership-v1/kubernetes.json");
const V1_SIGNED: &str = include_str!("../../../tests/golden/membership-v1/signed.json");

#[test]
fn cache_of_version_1_is_what_its_cluster_gives_today() {
    let (_root, host) = host();
    host.write(Path::new(PATH), V1_KUBERNETES, 0o600, None).unwrap();
    let source = "workloadgroup shop/productcatalog at https://10.0.0.1";
    let mut old = loaded(&host, source).unwrap().unwrap();
    let new = crate::join::kubernetes::compose::tests::compose("reference");
    // Only texts have lines.
    old.origins = new.origins.clone();
    assert_eq!(old, new);
    save(&host, Path::new(PATH), source, &new).unwrap();
    assert!(host.text(Path::new(PATH)).contains("\"version\": 2"));
    assert_eq!(loaded(&host, source).unwrap(), Some(new));
}

#[test]
fn cache_of_version_1_with_signed_files_is_taken_after_the_signature() {
    let (_root, host) = host();
    let (path, source) = (Path::new(PATH), "https://bundles.example/vm/");
    host.write(path, V1_SIGNED, 0o600, None).unwrap();
    let signed = load(&host, path, source, Some(KEY)).unwrap().unwrap();
    assert!(signed.signed.is_some());
    save(&host, path, source, &signed).unwrap();
    assert_eq!(loaded(&host, source).unwrap(), Some(signed));
    let changed = V1_SIGNED.replace("10.200.0.2", "10.200.0.9");
    host.write(path, &changed, 0o600, None).unwrap();
    loaded(&host, source).unwrap().unwrap();
    let error = load(&host, path, source, Some(KEY)).unwrap_err().to_string();
    assert!(error.contains("/vm/hosts: is not the file that was signed"), "{error}");
}
