//! The package's completions for shells are those that clap makes of our arguments. Checked in, because a package for
//! another architecture can't ask the program that it was built with.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_complete::{Shell, generate};

use super::Arguments;

const NAME: &str = "istio-vm-agent";

fn scripts() -> [(PathBuf, String); 3] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/completions");
    [
        (Shell::Bash, "bash/istio-vm-agent"),
        (Shell::Zsh, "zsh/_istio-vm-agent"),
        (Shell::Fish, "fish/istio-vm-agent.fish"),
    ]
    .map(|(shell, file)| {
        let mut text = Vec::new();
        generate(shell, &mut public(&Arguments::command()), NAME, &mut text);
        let text = String::from_utf8(text).unwrap();
        // clap_complete 4.6 names the branches for a program with a dash otherwise than it looks for them.
        let text = text.replace("istio__subcmd__vm__subcmd__agent", "istio__vm__agent");
        (folder.join(file), text)
    })
}

/// The command without the verbs that only units call.
fn public(command: &Command) -> Command {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set()).cloned();
    Command::new(NAME)
        .args(command.get_arguments().cloned())
        .subcommands(verbs)
}

#[test]
fn bash_finds_each_verb_that_it_looks_for() {
    let [(_, bash), ..] = scripts();
    let looked_for: Vec<&str> = bash
        .split("cmd=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(looked_for.len() > 10, "{looked_for:?}");
    for verb in looked_for.iter().filter(|verb| !verb.is_empty()) {
        assert!(
            bash.contains(&format!("\n        {verb})\n")),
            "nothing is offered after {verb}"
        );
    }
    assert!(!bash.contains("dns-standby"), "verbs of units are offered");
}

#[test]
fn completions_fit_the_arguments() {
    for (path, text) in scripts() {
        let written = fs::read_to_string(&path).unwrap_or_default();
        let remedy = "run `cargo test -p istio-vm-agent --lib -- --ignored write_the_completions`";
        assert!(written == text, "{} is out of date: {remedy}", path.display());
    }
}

#[test]
#[ignore = "writes packaging/completions"]
fn write_the_completions() {
    for (path, text) in scripts() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
