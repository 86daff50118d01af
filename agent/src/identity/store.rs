//! Key, chain and roots on disk, as one document: a crash leaves the old ones or the new ones, never a mismatch.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::certificate::{self, MAX_PEM};
use crate::facts::{Credentials, PrivateKey, Proven};
use crate::host::Host;

/// The format that this agent writes, and the only one that it reads.
const VERSION: u32 = 1;
/// Key, chain and roots, with room for JSON's escapes.
const MAX_BYTES: usize = 3 * MAX_PEM;

/// No `Debug`: it holds the key.
#[derive(Deserialize, Serialize)]
struct Document {
    version: u32,
    key: String,
    chain: String,
    roots: String,
    #[serde(default)]
    proven: Option<Proven>,
}

/// What is stored at `path`; `None` when nothing is. An error says why it can't be used, and never quotes it.
pub(super) fn load(host: &Host, path: &Path) -> Result<Option<Credentials>> {
    let Some(text) = host.read_bounded(path, MAX_BYTES)? else {
        return Ok(None);
    };
    parse(&text)
        .with_context(|| format!("{} is unusable", path.display()))
        .map(Some)
}

pub(super) fn parse(text: &str) -> Result<Credentials> {
    // serde's own message may quote the value that it stumbles over.
    let document: Document = serde_json::from_str(text)
        .map_err(|error| anyhow!("it is damaged at line {} column {}", error.line(), error.column()))?;
    ensure!(
        document.version == VERSION,
        "it is of version {}, this agent reads {VERSION}",
        document.version
    );
    let credentials = certificate::credentials(PrivateKey::new(document.key), &document.chain, &document.roots)?;
    Ok(Credentials {
        proven: document.proven,
        ..credentials
    })
}

/// Replaces what is stored at `path`; blocks until it is on the disk.
pub(super) fn save(host: &Host, path: &Path, credentials: &Credentials) -> Result<()> {
    let document = Document {
        version: VERSION,
        key: credentials.key.expose_pem().to_owned(),
        chain: credentials.chain_pem.clone(),
        roots: credentials.roots_pem.clone(),
        proven: credentials.proven.clone(),
    };
    let text = serde_json::to_string_pretty(&document).context("failed to encode the identity")?;
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
    use crate::control_plane::fixtures::Ca;
    use crate::host::System;

    const FILE: &str = "/state/identity.json";

    fn stored() -> (tempfile::TempDir, Host, Credentials) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let start = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let credentials = Credentials {
            proven: Some(Proven {
                by: "a token".to_owned(),
                at: start,
            }),
            ..Ca::new("mesh").credentials(start, start + Duration::from_secs(3600))
        };
        save(&host, FILE.as_ref(), &credentials).unwrap();
        (root, host, credentials)
    }

    #[test]
    fn what_is_saved_is_loaded_and_only_root_reads_it() {
        let (root, host, saved) = stored();
        let loaded = load(&host, FILE.as_ref()).unwrap().unwrap();
        assert_eq!((&loaded.key, &loaded.chain_pem), (&saved.key, &saved.chain_pem));
        assert_eq!(loaded.proven, saved.proven);
        let mode = |path: &str| std::fs::metadata(root.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!((mode("state"), mode("state/identity.json")), (0o711, 0o600));
    }

    #[test]
    fn nothing_stored_is_no_error() {
        let (_root, host, _) = stored();
        assert_eq!(load(&host, "/state/other.json".as_ref()).unwrap(), None);
    }

    #[test]
    fn damage_is_named_and_not_quoted() {
        let (_root, host, _) = stored();
        let text = host.read(FILE.as_ref()).unwrap();
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
    fn bytes_that_are_no_text_are_an_error() {
        let (root, host, _) = stored();
        let file = root.path().join("state/identity.json");
        let mut file = std::fs::File::options().write(true).open(file).unwrap();
        std::io::Write::write_all(&mut file, &[0xff; 9]).unwrap();
        load(&host, FILE.as_ref()).unwrap_err();
    }

    proptest! {
        #[test]
        fn anything_else_is_refused_without_a_panic(text in any::<String>(), at in any::<prop::sample::Index>(), byte in 0u8..128) {
            prop_assert!(parse(&text).is_err());
            let (_root, host, _) = stored();
            let mut bytes = host.read(FILE.as_ref()).unwrap().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&String::from_utf8(bytes).unwrap());
        }

        #[test]
        fn no_pem_makes_a_panic(key in any::<String>(), chain in any::<Vec<u8>>()) {
            use base64::Engine;
            let body = base64::engine::general_purpose::STANDARD.encode(&chain);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n").repeat(2);
            prop_assert!(certificate::credentials(PrivateKey::new(key), &pem, &pem).is_err());
        }
    }
}
