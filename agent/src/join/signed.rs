//! The signature of a bundle: SHA256SUMS, as sha256sum(1) writes it, of all files but the token, and minisign's
//! signature of that. With a public key in the configuration nothing unsigned is used, and nothing older than what was
//! used last.
//!
//! The token is left out: it is made anew each hour, and istiod is who judges it.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use minisign_verify::{PublicKey, Signature};
use serde::{Deserialize, Serialize};

use super::files::{Files, SignatureFiles};
use super::origin::ParseError;
use crate::config::ConfigError;
use crate::host::{Host, Read};

/// The files' names, beside those that they are about.
pub(super) const SUMS: &str = "SHA256SUMS";
pub(super) const SIGNATURE: &str = "SHA256SUMS.minisig";
const RESIGN: &str =
    "sign the files again, all of them, with `sha256sum` and `minisign` as `man istio-vm-agent.toml` shows";
/// Longest document that remembers the newest signature, in bytes.
const MAX_BYTES: usize = 4 << 10;

/// A signature that was found good.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Signed {
    /// The signer's key.
    public_key: String,
    /// Seconds since 1970, by the signer's clock.
    timestamp: u64,
}

/// Checks that `files` are what the key's owner signed.
pub(super) fn check(files: &Files, public_key: &str) -> Result<Signed, ConfigError> {
    let Some(SignatureFiles { sums, signature }) = &files.signature else {
        let beside = files.mesh_yaml.origin.to_string();
        let place = Path::new(&beside).with_file_name(SIGNATURE);
        return Err(ConfigError::new(&place, unsigned()));
    };
    let timestamp = verify(&sums.text, &signature.text, public_key).map_err(|error| signature.origin.error(error))?;
    let mut listed = listed(&sums.text).map_err(|error| sums.origin.error(error))?;
    let wrong_sums = |problem: String| sums.origin.error(ParseError::new(problem));
    for (name, file) in files.by_name() {
        let Some(wanted) = listed.remove(name) else {
            return Err(wrong_sums(format!("doesn't list {name}: {RESIGN}")));
        };
        if wanted != digest(&SHA256, file.text.as_bytes()).as_ref() {
            let problem = format!("is not the file that was signed: {RESIGN}");
            return Err(file.origin.error(ParseError::new(problem)));
        }
    }
    match listed.keys().next() {
        None => Ok(Signed {
            public_key: public_key.to_owned(),
            timestamp,
        }),
        Some(name) => Err(wrong_sums(format!(
            "lists {name}, which is none of the files that are used: {RESIGN}"
        ))),
    }
}

/// Refuses what `public_key` hasn't signed, and a signature that is older than the newest that was accepted: a good one
/// of yesterday's mesh, played again.
pub(super) fn expect_current(
    host: &Host,
    store: &Path,
    public_key: &str,
    signed: Option<&Signed>,
) -> Result<(), ConfigError> {
    let Some(signed) = signed.filter(|signed| signed.public_key == public_key) else {
        return Err(ConfigError::about(SIGNATURE, unsigned()));
    };
    let newest = newest(host, store).filter(|newest| newest.public_key == public_key);
    match newest.filter(|newest| signed.timestamp < newest.timestamp) {
        None => Ok(()),
        Some(newest) => Err(ConfigError::about(
            SIGNATURE,
            format!(
                "is of {}, older than the {} of one that was used before (seconds since 1970): sign the files again, \
                 or remove {} if the older ones are meant",
                signed.timestamp,
                newest.timestamp,
                store.display()
            ),
        )),
    }
}

fn unsigned() -> String {
    format!("is missing, and the configuration has a public_key: {RESIGN}, or remove the key")
}

/// Remembers a signature that was accepted.
pub(super) fn accept(host: &Host, store: &Path, accepted: &Signed) -> anyhow::Result<()> {
    if newest(host, store).as_ref() != Some(accepted) {
        host.write(store, &serde_json::to_string(accepted)?, 0o600, None)?;
    }
    Ok(())
}

/// The newest signature that was accepted; none where the document is missing or damaged.
fn newest(host: &Host, store: &Path) -> Option<Signed> {
    let text = host.read(store, Read::max(MAX_BYTES)).ok().flatten()?;
    serde_json::from_str(&text).ok()
}

pub(super) fn verify(sums: &str, signature: &str, public_key: &str) -> Result<u64, ParseError> {
    let key =
        PublicKey::from_base64(public_key).map_err(|_| ParseError::new("can't be checked: public_key is no key"))?;
    let signature = Signature::decode(signature)
        .map_err(|_| ParseError::new(format!("is no signature of minisign's: {RESIGN}")))?;
    key.verify(sums.as_bytes(), &signature, false)
        .map_err(|error| ParseError::new(format!("is not the key's signature of {SUMS} ({error}): {RESIGN}")))?;
    let mut words = signature.trusted_comment().split_ascii_whitespace();
    let timestamp = words.find_map(|word| word.strip_prefix("timestamp:")?.parse().ok());
    timestamp.ok_or_else(|| ParseError::new("doesn't say when it was made: sign without `-t`, as minisign then tells"))
}

/// Reads lines of sha256sum: 64 hexadecimal digits, a blank, a blank or `*`, and a name.
pub(super) fn listed(text: &str) -> Result<BTreeMap<&str, Vec<u8>>, ParseError> {
    let mut listed = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let parsed = line.split_once(' ').and_then(|(sum, name)| {
            let name = name.strip_prefix([' ', '*'])?;
            Some((name.strip_prefix("./").unwrap_or(name), bytes(sum)?))
        });
        let (name, sum) = parsed.ok_or_else(|| {
            ParseError::at(
                index + 1,
                "is no line of sha256sum's: 64 hexadecimal digits, two blanks and a file's name",
            )
        })?;
        if listed.insert(name, sum).is_some() {
            return Err(ParseError::at(index + 1, format!("lists {name} again")));
        }
    }
    Ok(listed)
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let is_sum = hex.len() == 64 && hex.bytes().all(|digit| digit.is_ascii_hexdigit());
    let pairs = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    is_sum.then(|| pairs.collect()).flatten()
}

#[cfg(test)]
mod tests;
