//! The managed block as a host change, and the merge as a pure function.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::PATH;
use crate::facts::{HostEntry, is_host_name};
use crate::host::change;
use crate::host::{Host, Read};

pub(super) const BEGIN: &str = "# BEGIN istio-vm-agent (managed; do not edit)";
pub(super) const END: &str = "# END istio-vm-agent";

/// Lists that block advertisers have some hundred thousand lines.
const MAX_BYTES: usize = 16 << 20;
/// Mode of /etc/hosts where there was none.
const MODE: u32 = 0o644;

/// The lines between our marks; empty: no block.
#[derive(Debug)]
pub(super) struct Block {
    lines: String,
}

impl Block {
    pub(super) fn new(entries: &[HostEntry]) -> Self {
        let mut lines = String::new();
        for HostEntry { ip, names } in entries.iter().filter(|entry| !entry.names.is_empty()) {
            // Writing to a String can't fail.
            let _ = writeln!(lines, "{ip} {}", names.join(" "));
        }
        Self { lines }
    }

    /// The block with lines that `lines` gave. Fails when they are anything but an address and its names.
    pub(super) fn parse(lines: &str) -> Result<Self> {
        for (index, line) in lines.lines().enumerate() {
            let mut words = line.split(' ');
            let ip = words.next().is_some_and(|ip| ip.parse::<IpAddr>().is_ok());
            let names: Vec<_> = words.collect();
            let good = ip && !names.is_empty() && names.into_iter().all(is_host_name);
            ensure!(good, "line {} is no address with its names", index + 1);
        }
        ensure!(lines.is_empty() || lines.ends_with('\n'), "its last line has no end");
        Ok(Self {
            lines: lines.to_owned(),
        })
    }

    /// The lines between the marks.
    pub(super) fn lines(&self) -> &str {
        &self.lines
    }

    /// Puts it in the file.
    pub(super) fn write(&self, host: &Host) -> Result<()> {
        match self.wanted(host)? {
            (Some(there), wanted) if there == wanted => Ok(()),
            (None, wanted) if wanted.is_empty() => Ok(()),
            // Nobody's lines but ours.
            (None, wanted) => host.write(Path::new(PATH), &String::from_utf8_lossy(&wanted), MODE, None),
            (Some(_), wanted) => host.rewrite(Path::new(PATH), &wanted),
        }
        .context("failed to write")
    }

    /// The file as it is, and as it is to be: the others' lines are bytes in whatever encoding.
    fn wanted(&self, host: &Host) -> Result<(Option<Vec<u8>>, Vec<u8>)> {
        let there = host
            .read_bytes(Path::new(PATH), Read::max(MAX_BYTES).following_links())
            .context("failed to read")?;
        let wanted = merge(there.as_deref().unwrap_or_default(), &self.lines);
        Ok((there, wanted))
    }
}

impl Block {
    /// The missing difference, as a diff; `None` when the file is as wanted.
    pub(super) fn plan(&self, host: &Host) -> Result<Option<String>> {
        let (there, wanted) = self.wanted(host)?;
        let there = there.unwrap_or_default();
        let shown = String::from_utf8_lossy;
        Ok((there != wanted).then(|| change::diff(&shown(&there), &shown(&wanted), PATH)))
    }
}

/// `text` with exactly one block of ours around `lines`, or with none when `lines` is empty.
///
/// A new block goes to the top: there it wins over a stale entry for the control plane that somebody once
/// appended by hand, and a last line without its newline need not be touched, so taking the block out gives the
/// very same bytes. A block that is there already is replaced where it is.
///
/// A mark without its other half is no block: the mark goes, the lines near it stay, because nobody can tell
/// any more which of them are ours.
pub(super) fn merge(there: &[u8], lines: &str) -> Vec<u8> {
    let block = if lines.is_empty() {
        String::new()
    } else {
        format!("{BEGIN}\n{lines}{END}\n")
    };
    let mut kept = Vec::with_capacity(there.len() + block.len());
    let mut place = None;
    let mut rest = &*there.split_inclusive(|byte| *byte == b'\n').collect::<Vec<_>>();
    while let Some((line, after)) = rest.split_first() {
        rest = after;
        if is(line, BEGIN) {
            if let Some(length) = whole(after) {
                place.get_or_insert(kept.len());
                rest = &after[length..];
            }
        } else if !is(line, END) {
            kept.extend_from_slice(line);
        }
    }
    let place = place.unwrap_or(0);
    kept.splice(place..place, block.into_bytes());
    kept
}

/// Number of lines up to and with the END of a block, when no other BEGIN comes first.
fn whole(after: &[&[u8]]) -> Option<usize> {
    let mark = after.iter().position(|line| is(line, END) || is(line, BEGIN))?;
    is(after[mark], END).then_some(mark + 1)
}

/// Tells whether the line is that mark; an editor may have changed its line ending.
fn is(line: &[u8], mark: &str) -> bool {
    line.trim_ascii_end() == mark.as_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::host::System;

    const LINES: &str = "10.0.0.1 istiod.istio-system.svc\n";

    fn text() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just(format!("{BEGIN}\n")),
            Just(format!("{END}\n")),
            Just(format!("{END}\r\n")),
            Just("127.0.0.1 localhost\r\n".to_owned()),
            Just("\n".to_owned()),
            Just(END.to_owned()),
            "\\PC{0,12}\n?",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    fn merged(text: &str, lines: &str) -> String {
        String::from_utf8(merge(text.as_bytes(), lines)).unwrap()
    }

    #[test]
    fn lines_in_another_encoding_are_kept_as_bytes() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let latin1 = b"10.1.2.3 fileserver # B\xfcro\n";
        std::fs::write(root.path().join("etc/hosts"), latin1).unwrap();
        let block = Block {
            lines: LINES.to_owned(),
        };
        assert!(block.plan(&host).unwrap().unwrap().contains(LINES));
        block.write(&host).unwrap();
        let there = || std::fs::read(root.path().join("etc/hosts")).unwrap();
        assert!(there().ends_with(latin1) && there().len() > latin1.len());
        Block::new(&[]).write(&host).unwrap();
        assert_eq!(there(), latin1);
    }

    proptest! {
        #[test]
        fn reverting_gives_back_the_same_bytes(text in "(\\PC|[\r\n\t]){0,200}") {
            prop_assert_eq!(merged(&merged(&text, LINES), ""), text);
        }

        #[test]
        fn marks_and_their_blocks_go_alone_whatever_is_left_of_them(text in text()) {
            let bare = merged(&text, "");
            prop_assert_eq!(&merged(&merged(&text, LINES), ""), &bare);
            prop_assert_eq!(&merged(&bare, ""), &bare);
            let applied = merged(&text, LINES);
            prop_assert_eq!(&merged(&applied, LINES), &applied);
            prop_assert_eq!(applied.matches(BEGIN).count(), bare.matches(BEGIN).count() + 1);
        }
    }

    #[test]
    fn stale_block_is_replaced_where_it_is() {
        let stale = format!("a\n{BEGIN}\n10.0.0.9 old\n{END}\nb");
        assert_eq!(merged(&stale, LINES), format!("a\n{BEGIN}\n{LINES}{END}\nb"));
        let twice = format!("{stale}\n{BEGIN}\n{END}\n");
        assert_eq!(merged(&twice, LINES), format!("a\n{BEGIN}\n{LINES}{END}\nb\n"));
    }

    #[test]
    fn half_a_block_loses_its_mark_and_no_line() {
        assert_eq!(merged(&format!("a\n{BEGIN}\nb\n"), ""), "a\nb\n");
        assert_eq!(merged(&format!("a\n{END}\nb\n"), ""), "a\nb\n");
        assert_eq!(merged(&format!("{BEGIN}\nb\n{BEGIN}\nc\n{END}\n"), ""), "b\n");
    }
}
