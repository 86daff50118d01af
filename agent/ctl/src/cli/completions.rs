//! The package's completions for shells are those that clap makes of our arguments. Checked in, because a package for
//! another architecture can't ask the program that it was built with.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::Arguments;

const NAME: &str = "istio-vm-ctl";

fn scripts() -> [(PathBuf, String); 3] {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/completions");
    [
        (Shell::Bash, "bash/istio-vm-ctl"),
        (Shell::Zsh, "zsh/_istio-vm-ctl"),
        (Shell::Fish, "fish/istio-vm-ctl.fish"),
    ]
    .map(|(shell, file)| {
        let mut text = Vec::new();
        generate(shell, &mut Arguments::command(), NAME, &mut text);
        (folder.join(file), String::from_utf8(text).unwrap())
    })
}

#[test]
fn the_completions_fit_the_arguments() {
    for (path, text) in scripts() {
        let written = fs::read_to_string(&path).unwrap_or_default();
        let remedy = "run `cargo test -p istio-vm-ctl -- --ignored write_the_completions`";
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
