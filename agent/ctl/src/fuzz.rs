//! Every parser of bytes that others make, for a fuzzer to feed, as the agent's are (`istio_vm_agent::fuzz`): `tests/fuzz`
//! does, and the test below replays its corpora. Built for these two only.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;

use crate::migration::{self, Migration};
use crate::{arrival, findings, gate, init, objects, parity, report};

/// Feeds an input to a parser; panics when something doesn't hold. Several documents of one input have a NUL between them.
pub type Target = fn(&[u8]);

/// Every target, by the name of its folder below tests/fuzz/corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("ctl_answers", parity::fuzz::answers),
    ("ctl_cluster", findings::fuzz::cluster),
    ("ctl_init", init::fuzz::init),
    ("ctl_migration", file),
    ("ctl_prometheus", gate::fuzz::answer),
    ("ctl_proxy_dump", arrival::fuzz::dump),
    ("ctl_route", objects::fuzz::route),
    ("ctl_run_lines", report::fuzz::lines),
];

/// Migrations of each form: by hosts, by subsets, of connections, and by a route of the Gateway API.
pub(crate) static MIGRATIONS: LazyLock<Vec<Migration>> = LazyLock::new(|| {
    let of = |pods: &str, more: &str| {
        let text = format!(
            "namespace = 'boutique'\nservice = 'catalog'\n{more}\n{pods}\nclusters = [{{ name = 'one' }}, {{ name = 'two' }}]\n\
             verify = {{ headers = ['X-Version'], calls = [{{ http = '/' }}] }}\n"
        );
        migration::parse(Path::new("migration.toml"), &text).expect("it is one")
    };
    let hosts = "vm = { workload_group = 'catalog' }\npods = { service = 'catalog-pods' }";
    let subsets =
        "vm = { workload_group = 'catalog', labels = { side = 'vm' } }\npods = { labels = { side = 'pods' } }";
    let gateway = "gateway_route = { kind = 'GRPCRoute', port = 3550 }";
    vec![
        of(hosts, ""),
        of(subsets, ""),
        of(hosts, "protocol = 'tcp'"),
        of(hosts, gateway),
    ]
});

/// The documents of an input.
pub(crate) fn documents(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|byte| *byte == 0)
}

/// JSON, or nothing.
pub(crate) fn json(document: Option<&[u8]>) -> Value {
    serde_json::from_slice(document.unwrap_or_default()).unwrap_or_default()
}

/// The list that an object has under a name.
pub(crate) fn list(object: &Value, key: &str) -> Vec<Value> {
    object[key].as_array().cloned().unwrap_or_default()
}

/// The migration's file.
fn file(input: &[u8]) {
    if let Ok(migration) = migration::parse(Path::new("migration.toml"), &String::from_utf8_lossy(input)) {
        assert!(!migration.clusters.is_empty() && migration.host().starts_with(migration.service.as_str()));
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test reads tests/fuzz/corpus")]
mod tests {
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::Path;

    use super::TARGETS;

    #[test]
    fn every_corpus_is_parsed_as_when_it_was_found() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/corpus");
        let mut broken = Vec::new();
        for (name, feed) in TARGETS {
            let folder = fs::read_dir(corpora.join(name)).unwrap();
            for path in folder.map(|entry| entry.unwrap().path()) {
                let input = fs::read(&path).unwrap();
                if catch_unwind(|| feed(&input)).is_err() {
                    broken.push(path);
                }
            }
        }
        assert!(broken.is_empty(), "{broken:#?}");
        let named = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().starts_with("ctl_");
        let folders = fs::read_dir(corpora).unwrap().map(Result::unwrap).filter(named);
        assert_eq!(folders.count(), TARGETS.len());
    }
}
