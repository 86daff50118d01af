use super::*;
use crate::host::System;
use crate::join::files::File;

/// The key of agent/tests/golden/signed, whose signatures minisign made.
const KEY: &str = "RWSYyLgjTU7yeFGbccI5/yKuG6Mht/69Nr95OufS50arxuNAwv2COlgh";

macro_rules! golden {
    ($file:literal) => {
        include_str!(concat!("../../../tests/golden/", $file))
    };
}

const ALL: &str = golden!("signed/all");
const FIRST: &str = golden!("signed/all.minisig");

fn file(name: &str, text: &str) -> File {
    File::new(Path::new("/b").join(name).display(), text)
}

fn signed(sums: &str, signature: &str) -> Files {
    Files {
        cluster_env: file("cluster.env", golden!("vm-bundle/cluster.env")),
        mesh_yaml: file("mesh.yaml", golden!("vm-bundle/mesh.yaml")),
        root_cert: file("root-cert.pem", golden!("vm-bundle/root-cert.pem")),
        hosts: file("hosts", golden!("vm-bundle/hosts")),
        signature: Some(SignatureFiles {
            sums: file(SUMS, sums),
            signature: file(SIGNATURE, signature),
        }),
    }
}

fn error(files: &Files) -> String {
    check(files, KEY).unwrap_err().to_string()
}

#[test]
fn signature_of_the_keys_owner_is_taken_whatever_the_token() {
    assert_eq!(check(&signed(ALL, FIRST), KEY).unwrap().timestamp, 1_795_680_970);
    let binary = ALL.replace("  ", " *");
    let cases = [
        (
            ALL,
            golden!("signed/stranger.minisig"),
            "/b/SHA256SUMS.minisig: is not the key's signature",
        ),
        (&binary, FIRST, "/b/SHA256SUMS.minisig: is not the key's signature"),
        (
            ALL,
            golden!("signed/legacy.minisig"),
            "/b/SHA256SUMS.minisig: is not the key's signature",
        ),
        (
            ALL,
            golden!("signed/untimed.minisig"),
            "/b/SHA256SUMS.minisig: doesn't say when",
        ),
        (ALL, "secret", "/b/SHA256SUMS.minisig: is no signature"),
        (
            golden!("signed/without-hosts"),
            golden!("signed/without-hosts.minisig"),
            "/b/SHA256SUMS: doesn't list hosts",
        ),
        (
            golden!("signed/with-token"),
            golden!("signed/with-token.minisig"),
            "/b/SHA256SUMS: lists istio-token, which is none",
        ),
    ];
    for (sums, signature, expected) in cases {
        let error = error(&signed(sums, signature));
        assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
    }
}

#[test]
fn files_are_those_that_were_signed() {
    type Of = fn(&mut Files) -> &mut File;
    let change: [(Of, &str); 4] = [
        (|it| &mut it.cluster_env, "cluster.env"),
        (|it| &mut it.mesh_yaml, "mesh.yaml"),
        (|it| &mut it.root_cert, "root-cert.pem"),
        (|it| &mut it.hosts, "hosts"),
    ];
    for (of, name) in change {
        let mut files = signed(ALL, FIRST);
        of(&mut files).text.push('\n');
        let error = error(&files);
        assert!(
            error.starts_with(&format!("/b/{name}: is not the file that was signed")),
            "{error}"
        );
    }
    let unsigned = Files {
        signature: None,
        ..signed(ALL, FIRST)
    };
    let error = error(&unsigned);
    assert!(error.starts_with("/b/SHA256SUMS.minisig: is missing"), "{error}");
}

#[test]
fn signatures_older_than_one_that_was_used_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let (host, store) = (Host::new(root.path(), System), Path::new("/newest.json"));
    let earlier = check(&signed(ALL, FIRST), KEY).unwrap();
    let later = check(&signed(ALL, golden!("signed/later.minisig")), KEY).unwrap();
    assert!(earlier.timestamp < later.timestamp);
    let fits = |key, signed| expect_current(&host, store, key, Some(signed));
    fits(KEY, &earlier).unwrap();
    accept(&host, store, &earlier).unwrap();
    fits(KEY, &earlier).unwrap();
    accept(&host, store, &later).unwrap();
    fits(KEY, &later).unwrap();
    let error = fits(KEY, &earlier).unwrap_err().to_string();
    assert!(
        error.contains("older than the") && error.contains("remove /newest.json"),
        "{error}"
    );
    let other = Signed {
        public_key: "another key".to_owned(),
        ..earlier
    };
    fits("another key", &other).unwrap();
    for unsigned in [None, Some(&earlier)] {
        let error = expect_current(&host, store, "another key", unsigned).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("is missing, and the configuration has a public_key"),
            "{error}"
        );
    }
}

#[test]
fn sums_are_read_from_sha256sums_own_lines_only() {
    for (line, is_fine) in [
        (&*format!("{:064} *./hosts", 1), true),
        (&*format!("{:064}  hosts", 1), true),
        (&*format!("{:063}  hosts", 1), false),
        (&*format!("{:064} hosts", 1), false),
        (&*format!("{:063}é  hosts", 1), false),
        ("", true),
        ("hosts", false),
    ] {
        assert_eq!(listed(line).is_ok(), is_fine, "{line}");
    }
    let twice = format!("{:064}  hosts\n{:064}  hosts\n", 1, 2);
    assert_eq!(listed(&twice).unwrap_err().line(), Some(2));
}
