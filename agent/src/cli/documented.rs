//! The command lines and configurations that the documents show are ones that the program takes.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory as _, Parser as _};

use super::Arguments;
use crate::config::Config;

const NAME: &str = "istio-vm-agent ";
/// A document of the other program, whose configuration it shows.
const OF_CTL: &str = "migrate.md";
/// Enough for a block that has something else to show.
const JOIN: &str = "[join]\ndirectory = { path = \"/etc/istio-vm-agent/bundle\" }\n";

/// README, the whole of docs, and what lies beside the parts of packaging.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let entries = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let beside = entries("packaging").map(|folder| folder.join("README.md"));
    let docs = entries("docs").chain(beside).filter(|path| path.is_file());
    let paths = std::iter::once(root.join("README.md")).chain(docs);
    paths
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// The blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let blocks = text.split("\n```").skip(1).step_by(2);
    blocks
        .filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'))
        .collect()
}

/// Command lines of this program, in blocks of `sh` and in backticks. Those with `…` are no whole ones, and a verb alone in
/// backticks is a name.
fn command_lines(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    let shell = blocks(&whole, "sh").into_iter().flat_map(str::lines);
    let shell = shell.filter_map(|line| line.split(['#', '|']).next().map(str::to_owned));
    let prose: String = whole.split("```").step_by(2).collect();
    let quoted = prose.split('`').skip(1).step_by(2);
    let quoted = quoted.map(|quote| quote.replace('\n', " "));
    let quoted = quoted.filter(|quote| quote.split_whitespace().count() > 2);
    shell
        .chain(quoted)
        .filter(|line| line.starts_with(NAME) && !line.contains('…'))
        .collect()
}

#[test]
fn documents_show_only_command_lines_that_are_taken() {
    let (mut shown, mut refused) = (0, Vec::new());
    for (document, text) in documents() {
        for line in command_lines(&text) {
            let words = line.split_whitespace().map(|word| word.trim_matches('\''));
            if let Err(error) = Arguments::try_parse_from(words) {
                refused.push(format!("{}: {line}: {error}", document.display()));
            }
            shown += 1;
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(shown > 40, "{shown} are found");
}

#[test]
fn documents_show_only_configurations_that_are_taken() {
    let mut shown = 0;
    for (document, text) in documents() {
        if document.ends_with(OF_CTL) {
            continue;
        }
        for block in blocks(&text, "toml") {
            let mut whole = block.replace("sha256:…", &format!("sha256:{}", "0".repeat(64))) + "\n";
            if !whole.contains("[join") {
                whole += JOIN;
            }
            let taken = Config::parse(Path::new("config.toml"), &whole);
            assert!(taken.is_ok(), "{}: {block}{}", document.display(), taken.unwrap_err());
            shown += 1;
        }
    }
    assert!(shown > 4, "{shown} are found");
}

/// A configuration within an example of packaging is a string of its YAML.
#[test]
fn examples_have_only_configurations_that_are_taken() {
    let mut shown = 0;
    for example in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")) {
        if example.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&example).unwrap();
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        for text in strings(&value).into_iter().filter(|text| text.contains("[join")) {
            let taken = Config::parse(&example, text);
            assert!(taken.is_ok(), "{}", taken.unwrap_err());
            shown += 1;
        }
    }
    assert!(shown > 2, "{shown} are found");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

fn strings(value: &serde_json::Value) -> Vec<&str> {
    match value {
        serde_json::Value::String(text) => vec![text],
        serde_json::Value::Array(items) => items.iter().flat_map(strings).collect(),
        serde_json::Value::Object(fields) => fields.values().flat_map(strings).collect(),
        _ => Vec::new(),
    }
}

/// README's table and the manual's synopsis have each verb that is not hidden.
#[test]
fn every_verb_is_in_the_table_and_in_the_synopsis() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    let manual = fs::read_to_string(root.join("packaging/man/istio-vm-agent.8")).unwrap();
    let (_, synopsis) = manual.split_once(".Sh SYNOPSIS").unwrap();
    let (synopsis, _) = synopsis.split_once(".Sh").unwrap();
    let command = Arguments::command();
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set());
    for verb in verbs.map(|verb| verb.get_name()) {
        let row = format!("\n| `{verb}");
        assert!(readme.contains(&row), "README has no row for {verb}");
        assert!(
            synopsis.split_whitespace().any(|word| word == verb),
            "the synopsis lacks {verb}"
        );
    }
}
