//! The command lines that the documents show are ones that the program takes.

use std::fs;
use std::path::Path;

use clap::{CommandFactory as _, Parser as _};

use super::Arguments;

const NAME: &str = "istio-vm-ctl ";

/// Command lines in blocks of `sh`, up to a pipe or a comment, and in backticks. Those with `…` are no whole ones, and a verb
/// alone in backticks is a name.
fn command_lines(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    let blocks = whole.split("```sh\n").skip(1);
    let shell = blocks
        .filter_map(|block| block.split("```").next())
        .flat_map(str::lines);
    let shell = shell.filter_map(|line| line.split(['#', '|']).next().map(str::to_owned));
    let prose: String = whole.split("```").step_by(2).collect();
    let quoted = prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|quote| quote.replace('\n', " "));
    let quoted = quoted.filter(|quote| quote.split_whitespace().count() > 2);
    let lines = shell.chain(quoted);
    lines
        .filter(|line| line.starts_with(NAME) && !line.contains('…'))
        .collect()
}

#[test]
fn documents_show_only_command_lines_that_are_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let docs = fs::read_dir(root.join("docs"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (mut shown, mut refused) = (0, Vec::new());
    for document in docs.chain([root.join("README.md")]) {
        for line in command_lines(&fs::read_to_string(&document).unwrap()) {
            if let Err(error) = Arguments::try_parse_from(line.split_whitespace()) {
                refused.push(format!("{}: {line}: {error}", document.display()));
            }
            shown += 1;
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(shown > 12, "{shown} are found");
}

#[test]
fn every_verb_is_in_the_synopsis_and_in_the_list_of_the_manual() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/man/istio-vm-ctl.1");
    let manual = fs::read_to_string(path).unwrap();
    let (synopsis, description) = manual.split_once(".Sh DESCRIPTION").unwrap();
    for verb in Arguments::command().get_subcommands().map(clap::Command::get_name) {
        assert!(
            synopsis.split_whitespace().any(|word| word == verb),
            "the synopsis lacks {verb}"
        );
        let item = format!("\n.It Cm {verb}");
        assert!(description.contains(&item), "the list lacks {verb}");
    }
}
