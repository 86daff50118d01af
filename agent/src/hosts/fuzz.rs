//! Properties of /etc/hosts, whatever is in it.

use super::block::{self, BEGIN, Block, END};

/// The file, and the lines that are to be in it.
pub(crate) fn block(input: &str) {
    let (text, wanted) = input.split_once('\0').unwrap_or((input, ""));
    let mut lines: String = wanted.lines().map(|line| format!("{line}\n")).collect();
    if is_marked(&lines) {
        lines.clear();
    }
    let merged = merge(text, &lines);
    assert_eq!(merge(&merged, &lines), merged, "a second time changes nothing");
    let reverted = merge(&merged, "");
    assert_eq!(reverted, merge(text, ""), "nothing of ours is left");
    assert!(is_marked(text) || reverted == text, "what is not ours stays as it is");
}

/// The lines that are left for the unit which writes the file.
pub(crate) fn list(text: &str) {
    if let Ok(block) = Block::parse(text) {
        assert_eq!(block.lines(), text);
        assert!(
            !is_marked(text) && !text.contains(['#', '\t', '\r']),
            "nothing but addresses and names"
        );
    }
}

fn merge(text: &str, lines: &str) -> String {
    let merged = block::merge(text.as_bytes(), lines);
    String::from_utf8(merged).expect("the lines of a text")
}

fn is_marked(text: &str) -> bool {
    [BEGIN, END].iter().any(|mark| text.contains(mark))
}
