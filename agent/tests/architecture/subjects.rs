//! Doc comments begin with their subject: `cargo doc` and `--help` show them alone.

use std::fs;
use std::path::{Path, PathBuf};

/// Words in the place of a subject.
const STAND_INS: [&str; 15] = [
    "He", "How", "It", "Its", "That", "Their", "These", "They", "This", "Those", "What", "Whether", "Which", "Whom",
    "Whose",
];

#[test]
fn doc_comments_begin_with_their_subject() {
    let found: Vec<String> = written().iter().flat_map(|file| without_subject(file)).collect();
    assert!(
        found.is_empty(),
        "name the thing that each of these is about, as its first word:\n{}",
        found.join("\n")
    );
}

/// Sources of the repository that people write.
fn written() -> Vec<PathBuf> {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests", "ctl/src", "proto/src", "../tests"];
    let files = folders
        .iter()
        .flat_map(|folder| super::sources_below(agent.join(folder)));
    files
        .filter(|file| !file.iter().any(|part| part == "generated"))
        .collect()
}

/// First lines of a file's doc comments that begin with a stand-in.
fn without_subject(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let sentences: Vec<Option<&str>> = text.lines().map(sentence).collect();
    let firsts = sentences.iter().enumerate().filter(|(at, _)| {
        let before = at.checked_sub(1).and_then(|before| sentences[before]);
        before.is_none()
    });
    firsts
        .filter_map(|(at, sentence)| {
            let first = sentence.as_ref()?.split(|c: char| !c.is_alphabetic()).next()?;
            let place = || format!("{}:{}: {}", file.display(), at + 1, sentence.unwrap_or_default());
            STAND_INS.contains(&first).then(place)
        })
        .collect()
}

/// Text of a line of a doc comment.
fn sentence(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let text = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
    Some(text.trim_start())
}
