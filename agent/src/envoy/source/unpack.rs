//! The program out of a fetched file: that file itself, or a file of a tar archive, gzipped or not.

use std::io::{self, Read, Seek, Write};
use std::path::{Component, Path};

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;
use tar::Archive;

/// The most bytes of a program: more than any Envoy has, its debug information included.
pub(super) const MAX_PROGRAM_BYTES: u64 = 1 << 30;
/// The path of the program in Istio's proxy image.
pub(super) const PLACE: &str = "usr/local/bin/envoy";
/// The most entries of an archive that are looked at: a whole distribution has fewer.
const MAX_ENTRIES: usize = 1 << 20;
/// The first bytes of a program (elf(5)).
const ELF: &[u8] = b"\x7fELF";
/// The first bytes of a gzip file (RFC 1952).
const GZIP: &[u8] = b"\x1f\x8b";
/// The mark of a tar archive, and its offset (POSIX, ustar).
const TAR: (usize, &[u8]) = (257, b"ustar");
/// The most bytes of an unpacked archive: the program and what is beside it.
const MAX_ARCHIVE_BYTES: u64 = 2 * MAX_PROGRAM_BYTES;

/// Copies the program in `fetched`, which may be an archive with a file `envoy`, to `into`; `false` when there is none in
/// the archive. Fails when it is cut short.
pub(super) fn program(fetched: &mut (impl Read + Seek), into: &mut impl Write) -> Result<bool> {
    let is_envoy = |path: &Path| path.file_name().is_some_and(|name| name == "envoy");
    if head(fetched)?.starts_with(ELF) {
        io::copy(fetched, into)?;
        return Ok(true);
    }
    archive(fetched, is_envoy, into)
}

/// Copies the program in a layer of Istio's proxy image to `into`; `false` when it is in another layer. Fails when it is
/// cut short.
pub(super) fn layer(fetched: &mut (impl Read + Seek), into: &mut impl Write) -> Result<bool> {
    // Some tools write paths from the root, some from the current directory.
    let is_envoy = |path: &Path| {
        let parts = path.components().filter(|part| matches!(part, Component::Normal(_)));
        parts.eq(Path::new(PLACE).components())
    };
    archive(fetched, is_envoy, into)
}

fn head(fetched: &mut (impl Read + Seek)) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    fetched.by_ref().take(TAR.0 as u64 + 8).read_to_end(&mut head)?;
    fetched.rewind()?;
    Ok(head)
}

fn archive(fetched: &mut (impl Read + Seek), is_wanted: impl Fn(&Path) -> bool, into: &mut impl Write) -> Result<bool> {
    let head = head(fetched)?;
    if head.starts_with(GZIP) {
        member(MultiGzDecoder::new(fetched), is_wanted, into)
    } else if head.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        member(fetched, is_wanted, into)
    } else {
        bail!("it is neither a program for Linux nor a tar archive, gzipped or not, with one")
    }
}

fn member(archive: impl Read, is_wanted: impl Fn(&Path) -> bool, into: &mut impl Write) -> Result<bool> {
    let mut archive = Archive::new(archive.take(MAX_ARCHIVE_BYTES));
    // Raw: a name or a header that has an entry of its own would be read into memory, however long it is. Envoy's has none.
    let entries = archive.entries().context("failed to read the archive")?.raw(true);
    for (count, entry) in entries.enumerate() {
        let mut entry = entry.context("failed to read the archive")?;
        if count >= MAX_ENTRIES {
            bail!("the archive has more than {MAX_ENTRIES} entries");
        }
        let is_named = entry.path().is_ok_and(|path| is_wanted(&path));
        if !is_named || !entry.header().entry_type().is_file() {
            continue;
        }
        let mut head = [0; ELF.len()];
        entry
            .read_exact(&mut head)
            .context("failed to read `envoy` in the archive")?;
        if head != ELF {
            bail!("`envoy` in the archive is no program for Linux");
        }
        into.write_all(&head)?;
        let size = entry.size();
        let copied = io::copy(&mut entry, into).context("failed to unpack `envoy`")?;
        if copied + head.len() as u64 != size {
            bail!("the archive ends within `envoy`");
        }
        return Ok(true);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use tar::{Builder, EntryType, Header};

    use super::*;

    fn unpacked(fetched: &[u8]) -> Result<Vec<u8>, String> {
        let mut program_found = Vec::new();
        match program(&mut Cursor::new(fetched), &mut program_found) {
            Ok(true) => Ok(program_found),
            Ok(false) => Err("none".to_owned()),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    fn tar_of(files: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, kind, content) in files {
            let mut header = Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append_data(&mut header, name, *content).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn gzipped(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn unpack_finds_a_program_in_each_form() {
        let envoy = [ELF, &[7; 3000]].concat();
        assert_eq!(unpacked(&envoy).unwrap(), envoy);
        let tar = tar_of(&[
            ("etc/envoy", EntryType::Directory, b""),
            ("etc/envoy/envoy.yaml", EntryType::Regular, b"no"),
            ("usr/local/bin/envoy", EntryType::Regular, &envoy),
            ("other/envoy", EntryType::Regular, b"not this one"),
        ]);
        assert_eq!(unpacked(&tar).unwrap(), envoy);
        assert_eq!(unpacked(&gzipped(&tar)).unwrap(), envoy);
    }

    #[test]
    fn unpack_takes_of_a_layer_what_is_in_its_place_alone() {
        let envoy = [ELF, &[7; 3000]].concat();
        for place in ["usr/local/bin/envoy", "./usr/local/bin/envoy"] {
            let elsewhere = ("usr/bin/envoy", EntryType::Regular, &b"no program"[..]);
            let tar = tar_of(&[elsewhere, (place, EntryType::Regular, &envoy)]);
            let mut found = Vec::new();
            assert!(layer(&mut Cursor::new(gzipped(&tar)), &mut found).unwrap(), "{place}");
            assert_eq!(found, envoy);
        }
        for place in ["envoy", "root/usr/local/bin/envoy", "usr/local/bin/envoy/envoy"] {
            let tar = tar_of(&[(place, EntryType::Regular, &envoy)]);
            assert!(!layer(&mut Cursor::new(tar), &mut Vec::new()).unwrap(), "{place}");
        }
        assert!(layer(&mut Cursor::new(envoy), &mut Vec::new()).is_err());
        // zstd's first bytes (RFC 8878).
        assert!(layer(&mut Cursor::new(b"\x28\xb5\x2f\xfd"), &mut Vec::new()).is_err());
    }

    #[test]
    fn unpack_tells_why_there_is_no_program() {
        let envoy = [ELF, &[7; 3000]].concat();
        let whole = tar_of(&[("envoy", EntryType::Regular, &envoy)]);
        let cases = [
            (b"<html>".to_vec(), "neither a program"),
            (Vec::new(), "neither a program"),
            (gzipped(b"text"), "archive"),
            (tar_of(&[("readme", EntryType::Regular, b"x")]), "none"),
            (tar_of(&[("envoy", EntryType::Symlink, b"")]), "none"),
            (tar_of(&[("envoy", EntryType::Regular, b"#!/bin/sh")]), "no program"),
            (whole[..1500].to_vec(), "envoy"),
            (gzipped(&whole[..1500]), "envoy"),
        ];
        for (fetched, wanted) in cases {
            let error = unpacked(&fetched).unwrap_err();
            assert!(error.contains(wanted), "{wanted:?} is not in {error:?}");
        }
    }

    proptest! {
        #[test]
        fn unpack_never_panics(at in 0..600_usize, byte in any::<u8>(), zip in any::<bool>()) {
            let mut bytes = tar_of(&[("envoy", EntryType::Regular, &[ELF, &[7; 100]].concat())]);
            bytes[at] = byte;
            let _ = unpacked(&if zip { gzipped(&bytes) } else { bytes });
        }
    }
}
