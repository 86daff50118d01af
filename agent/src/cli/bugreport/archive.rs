//! The archive: a folder with the pieces, and a file that says what is missing.

use std::io::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

use super::Piece;
use crate::bounds::bounded_words;
use crate::facts::date;
use crate::release::{COMMIT, VERSION};

/// Longest piece, in bytes; of a longer one the end is kept, which is the newest of a journal.
const MAX_PIECE: usize = 8 << 20;
/// Longest reason, in characters.
const MAX_WORDS: usize = 500;

/// All pieces as one file.
pub(super) fn tar_gz(pieces: &[Piece], now: SystemTime) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut add = |name: &str, text: &str| {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("istio-vm-agent-bugreport/{name}"), text.as_bytes())
    };
    let mut told = format!("istio-vm-agent {VERSION} ({COMMIT}), at {}\n", date(now));
    told += "envoy/: has the fields of Envoy's API that hold names, addresses, versions, times and numbers. All others are left\n\
             out, for they may hold secrets: matchers of strings, headers, bodies, metadata, plugins and their configuration.\n";
    for piece in pieces {
        match &piece.content {
            Ok(text) => {
                add(piece.name, end_of(text))?;
                if text.len() > MAX_PIECE {
                    told += &format!("{}: the last {MAX_PIECE} bytes of {}\n", piece.name, text.len());
                }
            }
            Err(error) => {
                told += &format!(
                    "{}: missing: {}\n",
                    piece.name,
                    bounded_words(&format!("{error:#}"), MAX_WORDS)
                );
            }
        }
    }
    add("README.txt", &told)?;
    let mut packed = archive.into_inner()?;
    packed.flush()?;
    packed.finish()
}

fn end_of(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MAX_PIECE);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use anyhow::anyhow;
    use flate2::read::GzDecoder;
    use tar::Archive;

    use super::*;

    #[test]
    fn archive_has_each_piece_bounded_and_says_what_is_missing() {
        let pieces = [
            Piece {
                name: "long.txt",
                content: Ok("é".repeat(MAX_PIECE / 2 + 1)),
            },
            Piece {
                name: "gone.txt",
                content: Err(anyhow!("no\nsuch thing")),
            },
        ];
        let packed = tar_gz(&pieces, UNIX_EPOCH).unwrap();
        let mut archive = Archive::new(GzDecoder::new(packed.as_slice()));
        let files: Vec<(String, String)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let (name, mut text) = (entry.path().unwrap().display().to_string(), String::new());
                entry.read_to_string(&mut text).unwrap();
                (name, text)
            })
            .collect();
        let [(long, text), (readme, told)] = files.try_into().unwrap();
        assert_eq!(
            (long.as_str(), text.len()),
            ("istio-vm-agent-bugreport/long.txt", MAX_PIECE)
        );
        assert_eq!(readme, "istio-vm-agent-bugreport/README.txt");
        assert!(told.contains("gone.txt: missing: no such thing\n"), "{told}");
        assert!(told.contains("long.txt: the last 8388608 bytes of 8388610\n"), "{told}");
    }
}
