//! docs/host-events.md is made of what the product says of its events.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads the sources, and fails by panicking"
)]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use istio_vm_agent::facts::HostEvent;

/// Beside this, the document is what `facts/host_event/table.rs` has; `UPDATE=1` writes it.
const HEAD: &str = "\
# Host events

What happens to the VM, and what the agent does. Each line of the log about one of these has its code in the field `code`:
`journalctl -u istio-vm-agent CODE=clock-stepped`. Times are from the event to the end of the reaction: those with a decimal
point were measured by the cases of `tests/cases/host_events.rs` on two busy cores (2.1 GHz), the others are bounds.

| code | event | reaction | time |
|---|---|---|---|
";

#[test]
fn document_of_host_events_is_what_the_product_says() {
    let mut text = HEAD.to_owned();
    for row in HostEvent::all() {
        writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            row.code, row.event, row.reaction, row.time
        )
        .unwrap();
    }
    let file = root().join("docs/host-events.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(file).unwrap(), text, "run this test with UPDATE=1");
}

/// A code that nobody logs is a promise that nobody keeps.
#[test]
fn every_event_is_logged_somewhere() {
    let sources = sources(&root().join("agent/src"));
    for row in HostEvent::all() {
        let uses = sources.matches(&format!("HostEvent::{:?}", row.kind)).count();
        // One is the table's.
        assert!(uses > 1, "{:?}", row.kind);
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(folder: &Path) -> String {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = entries.map(|path| match path.extension() {
        None => sources(&path),
        Some(extension) if extension == "rs" => fs::read_to_string(path).unwrap(),
        Some(_) => String::new(),
    });
    texts.collect()
}
