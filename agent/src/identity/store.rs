//! Key, chain and roots on disk, as one document: a crash leaves the old ones or the new ones, never a mismatch.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::certificate::{self, MAX_PEM};
use crate::facts::{Credentials, IssuedWith, Secret};
use crate::host::{Host, Machine, Read};

/// Version of the format: the one that this agent writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Longest document, in bytes: key, chain and roots, with room for JSON's escapes.
const MAX_BYTES: usize = 3 * MAX_PEM;

/// The refusal of credentials that another machine stored.
#[derive(Debug, thiserror::Error)]
#[error("it is of another machine, of whose disk this one's is a copy: this VM joins with a key of its own")]
pub(super) struct OfAnotherMachine;

#[derive(Deserialize, Serialize)]
struct Document {
    version: u32,
    key: Secret,
    chain: String,
    roots: String,
    #[serde(default, rename = "proven")]
    issued_with: Option<IssuedWith>,
    /// Mark of the machine that it is of; absent: an agent wrote it that made no mark.
    #[serde(default)]
    machine: Option<Machine>,
}

/// The credentials that are stored at `path`; `None` when nothing is. Those of another machine are of no use on a copy of
/// its disk, which would speak in its name.
///
/// # Errors
/// When they can't be used; it never quotes the file.
pub(super) fn load(host: &Host, path: &Path) -> Result<Option<Credentials>> {
    let Some(text) = host.read(path, Read::max(MAX_BYTES))? else {
        return Ok(None);
    };
    parse(&Zeroizing::new(text), &host.machine())
        .with_context(|| format!("{} is unusable", path.display()))
        .map(|(credentials, _)| Some(credentials))
}

/// Marks the stored credentials as this machine's, where they aren't: from then on no other one takes them up.
pub(super) fn mark(host: &Host, path: &Path) -> Result<()> {
    let machine = host.machine();
    let Some(text) = host.read(path, Read::max(MAX_BYTES))? else {
        return Ok(());
    };
    let (credentials, known) = parse(&Zeroizing::new(text), &machine)?;
    if machine.knows_more_than(&known.unwrap_or_default()) {
        save(host, path, &credentials)?;
    }
    Ok(())
}

/// The credentials in a document, and the mark of the machine that they are of.
pub(super) fn parse(text: &str, here: &Machine) -> Result<(Credentials, Option<Machine>)> {
    // serde's own message may quote the value that it stumbles over.
    let document: Document = serde_json::from_str(text)
        .map_err(|error| anyhow!("it is damaged at line {} column {}", error.line(), error.column()))?;
    ensure!(
        document.version == VERSION,
        "it is of version {}, this agent reads {VERSION}",
        document.version
    );
    let is_foreign = document.machine.as_ref().is_some_and(|of| here.is_another_than(of));
    ensure!(!is_foreign, OfAnotherMachine);
    let credentials = certificate::credentials(document.key.into(), &document.chain, &document.roots)?;
    let credentials = Credentials {
        issued_with: document.issued_with,
        ..credentials
    };
    Ok((credentials, document.machine))
}

/// Replaces the credentials that are stored at `path`; blocks until they are on the disk.
pub(super) fn save(host: &Host, path: &Path, credentials: &Credentials) -> Result<()> {
    let document = Document {
        version: VERSION,
        key: credentials.key.clone().into(),
        chain: credentials.chain_pem.clone(),
        roots: credentials.roots_pem.clone(),
        issued_with: credentials.issued_with.clone(),
        machine: Some(host.machine()),
    };
    let text = Zeroizing::new(serde_json::to_string_pretty(&document).context("failed to encode the identity")?);
    if let Some(directory) = path.parent() {
        host.make_directory(directory, 0o711, None)?;
    }
    Ok(host.write(path, &text, 0o600, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;
    use crate::control_plane::fixtures::{Ca, issued_by};
    use crate::facts::PrivateKey;
    use crate::host::System;
    use crate::host::machine::tests::{ONE, OTHER, set_machine_id};

    const FILE: &str = "/state/identity.json";

    fn stored() -> (tempfile::TempDir, Host, Credentials) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let credentials = Credentials {
            issued_with: Some(IssuedWith {
                by: "a token".to_owned(),
                at: start,
            }),
            ..issued_by(&Ca::new("mesh"), start, start + Duration::from_secs(3600))
        };
        save(&host, FILE.as_ref(), &credentials).unwrap();
        (root, host, credentials)
    }

    #[test]
    fn store_loads_what_it_saved_and_only_root_reads_it() {
        let (root, host, saved) = stored();
        let loaded = load(&host, FILE.as_ref()).unwrap().unwrap();
        assert_eq!((&loaded.key, &loaded.chain_pem), (&saved.key, &saved.chain_pem));
        assert_eq!(loaded.issued_with, saved.issued_with);
        let mode = |path: &str| std::fs::metadata(root.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("state"), mode("state/identity.json")), (0o711, 0o600));
    }

    #[test]
    fn store_of_another_machine_is_not_taken_up_on_a_copy_of_its_disk() {
        let (_root, host, _) = stored();
        // An agent without marks wrote it, or there was no machine-id yet.
        let unmarked = host.text(FILE.as_ref());
        set_machine_id(&host, ONE);
        load(&host, FILE.as_ref()).unwrap().unwrap();
        mark(&host, FILE.as_ref()).unwrap();
        let marked = host.text(FILE.as_ref());
        assert!(marked != unmarked && !marked.contains(ONE.trim()));
        mark(&host, FILE.as_ref()).unwrap();
        assert_eq!(host.text(FILE.as_ref()), marked);

        set_machine_id(&host, OTHER);
        let error = format!("{:#}", load(&host, FILE.as_ref()).unwrap_err());
        assert!(error.contains("is of another machine"), "{error}");
        mark(&host, FILE.as_ref()).unwrap_err();
        // It is not lost: the machine may only have lost its machine-id.
        assert_eq!(host.text(FILE.as_ref()), marked);
        for unknown in ["uninitialized\n", "", ONE] {
            set_machine_id(&host, unknown);
            load(&host, FILE.as_ref()).unwrap().unwrap();
            mark(&host, FILE.as_ref()).unwrap();
            assert_eq!(host.text(FILE.as_ref()), marked, "{unknown:?}");
        }
    }

    #[test]
    fn store_that_is_not_there_is_no_error() {
        let (_root, host, _) = stored();
        assert_eq!(load(&host, "/state/other.json".as_ref()).unwrap(), None);
    }

    #[test]
    fn damage_of_the_store_is_named_and_not_quoted() {
        let (_root, host, _) = stored();
        let text = host.text(FILE.as_ref());
        let cases = [
            (text.replace("\"version\": 1", "\"version\": 2"), "it is of version 2"),
            (text[..text.len() / 2].to_owned(), "it is damaged at line"),
            (String::new(), "it is damaged at line 1 column 0"),
            (
                text.replace("\"key\": \"", "\"key\": 7, \"x\": \""),
                "it is damaged at line",
            ),
        ];
        for (text, expected) in cases {
            host.write(FILE.as_ref(), &text, 0o600, None).unwrap();
            let error = format!("{:#}", load(&host, FILE.as_ref()).unwrap_err());
            assert!(
                error.starts_with("/state/identity.json is unusable: ") && error.contains(expected),
                "{error}"
            );
        }
    }

    #[test]
    fn store_of_bytes_that_are_no_text_is_an_error() {
        let (root, host, _) = stored();
        let file = root.path().join("state/identity.json");
        let mut file = std::fs::File::options().write(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, &[0xff; 9]).unwrap();
        load(&host, FILE.as_ref()).unwrap_err();
    }

    proptest! {
        #[test]
        fn store_of_anything_else_is_refused_without_a_panic(text in any::<String>(), at in any::<prop::sample::Index>(), byte in 0u8..128) {
            prop_assert!(parse(&text, &Machine::default()).is_err());
            let (_root, host, _) = stored();
            let mut bytes = host.text(FILE.as_ref()).into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&String::from_utf8(bytes).unwrap(), &Machine::default());
        }

        #[test]
        fn pem_of_any_bytes_makes_no_panic(key in any::<String>(), chain in any::<Vec<u8>>()) {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD.encode(&chain);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").repeat(2);
            prop_assert!(certificate::credentials(PrivateKey::new(key), &pem, &pem).is_err());
        }
    }
}
