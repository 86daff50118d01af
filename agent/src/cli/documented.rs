//! The command lines that the documents show are ones that the program takes.

use clap::Parser as _;

use super::Arguments;

const DOCUMENTS: [&str; 4] = ["README.md", "docs/operate.md", "docs/runbook.md", "docs/develop.md"];
const NAME: &str = "istio-vm-agent ";

/// Command lines of this program, in blocks of `sh` and in backticks; those with `…` are no whole ones.
fn command_lines(text: &str) -> Vec<String> {
    let (mut lines, mut in_shell) = (Vec::new(), false);
    let whole = text.replace("\\\n", " ");
    for line in whole.lines() {
        match line.strip_prefix("```") {
            Some(language) => in_shell = language == "sh",
            None if in_shell => lines.extend(line.split(['#', '|']).next()),
            None => {}
        }
    }
    let prose: String = whole.split("```").step_by(2).collect();
    let quoted = prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|quote| quote.replace('\n', " "));
    let shown = lines.into_iter().map(str::to_owned).chain(quoted);
    shown
        .filter(|line| line.starts_with(NAME) && !line.contains('…'))
        .collect()
}

#[test]
fn documents_show_only_command_lines_that_are_taken() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for document in DOCUMENTS {
        let text = std::fs::read_to_string(format!("{root}/{document}")).unwrap();
        let lines = command_lines(&text);
        assert!(
            document == "docs/develop.md" || lines.len() > 3,
            "{document}: {lines:?}"
        );
        for line in lines {
            let taken = Arguments::try_parse_from(line.split_whitespace());
            assert!(taken.is_ok(), "{document}: {line}: {}", taken.unwrap_err());
        }
    }
}
