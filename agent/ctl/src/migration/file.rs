//! The file as a text whose faults have places.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use super::Migration;

/// Reads and checks the file at `path`.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own file on the operator's machine, which has no Host"
)]
pub(crate) fn read(path: &Path) -> Result<Migration> {
    let text = std::fs::read_to_string(path).with_context(|| {
        format!(
            "failed to read {}: name the migration's file with --file",
            path.display()
        )
    })?;
    parse(path, &text)
}

/// Errors are `FILE:LINE:COLUMN: problem`, or a line `FILE: key: problem` for each.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Migration> {
    let migration: Migration = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let before = text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        anyhow!("{}:{line}:{column}: {}", path.display(), error.message())
    })?;
    let mut told = String::new();
    for problem in migration.problems() {
        let _ = write!(told, "\n{}: {problem}", path.display());
    }
    match told.trim_start() {
        "" => Ok(migration),
        faults => bail!("{faults}"),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const HOSTS: &str = "namespace = 'boutique'\nservice = 'catalog'\nvm = { workload_group = 'catalog' }\n\
        pods = { service = 'catalog-pods' }\nclusters = [{ name = 'one' }, { name = 'two' }]\n";

    pub(crate) fn migration(text: &str) -> Migration {
        parse(Path::new("m.toml"), text).unwrap()
    }

    fn refused(text: &str) -> String {
        parse(Path::new("m.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn file_of_one_service_in_two_clusters_is_read() {
        let migration = migration(HOSTS);
        assert_eq!(migration.host(), "catalog.boutique.svc.cluster.local");
        assert_eq!(migration.pods_host(), "catalog-pods.boutique.svc.cluster.local");
        assert_eq!(migration.run.steps.len(), 5);
    }

    #[test]
    fn file_of_the_document_is_good() {
        let document = include_str!("../../../../docs/migrate.md");
        let blocks = document.split("```toml\n").skip(1);
        let mut blocks: Vec<&str> = blocks.filter_map(|block| block.split("```").next()).collect();
        // A table goes on to the next one: keys by themselves come before any.
        blocks.sort_by_key(|block| (block.starts_with('['), block.contains("\n[")));
        let migration = migration(&blocks.concat());
        assert_eq!(
            (migration.clusters.len(), migration.verify.unwrap().calls.len()),
            (2, 2)
        );
    }

    #[test]
    fn faults_have_their_place() {
        let unknown = refused(&HOSTS.replace("service = 'catalog'", "servise = 'catalog'"));
        assert!(unknown.starts_with("m.toml:2:1: unknown field `servise`"), "{unknown}");
        let wrong = refused(&HOSTS.replace("'boutique'", "'Boutique'"));
        assert!(
            wrong.starts_with("m.toml:1:13: \"Boutique\" is no name of Kubernetes"),
            "{wrong}"
        );
    }

    #[test]
    fn numbers_out_of_bounds_are_refused() {
        for (more, words) in [
            ("gate = { window = '0s' }", "gate.window: at least 1s"),
            ("gate = { success = 99.9 }", "gate.success: 99.9 is no part"),
            ("gate = { success = nan }", "gate.success: NaN is no part"),
            ("gate = { p99_ratio = inf }", "gate.p99_ratio: inf is not between"),
            ("run = { hold = '300years' }", "\"300years\" is longer than 30 days"),
            (
                "verify = { latency_ratio = -1.0, calls = [{ http = '/' }] }",
                "verify.latency_ratio: -1 is not between",
            ),
        ] {
            let told = refused(&format!("{HOSTS}{more}"));
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn sides_that_can_not_be_told_apart_are_refused() {
        let same = refused(&HOSTS.replace("catalog-pods", "catalog"));
        assert!(same.starts_with("m.toml: pods.service: is the service that"), "{same}");
        let none = refused(&HOSTS.replace("service = 'catalog-pods'", ""));
        assert!(none.contains("pods: name the pods' Service"), "{none}");
        let labels = HOSTS
            .replace("service = 'catalog-pods'", "labels = { side = 'pods' }")
            .replace("group = 'catalog'", "group = 'catalog', labels = { side = 'vm' }")
            .replace("'one' }", "'one', prometheus = 'http://10.0.0.4:9090' }");
        let blind = refused(&labels);
        assert!(blind.starts_with("m.toml: gate.metrics: Istio's metrics"), "{blind}");
        assert_eq!(
            migration(&format!("{labels}gate = {{ metrics = 'envoy' }}"))
                .clusters
                .len(),
            2
        );
        let gateway = "gateway_route = { kind = 'GRPCRoute', port = 3550 }\n";
        let no_subsets = refused(&format!(
            "{gateway}{}",
            labels.replace(", prometheus = 'http://10.0.0.4:9090'", "")
        ));
        assert!(
            no_subsets.starts_with("m.toml: gateway_route: the Gateway API has no subsets"),
            "{no_subsets}"
        );
        let connections = refused(&format!("{gateway}protocol = 'tcp'\n{HOSTS}"));
        assert!(
            connections.contains("its kinds split calls, not connections"),
            "{connections}"
        );
        let twice = refused(&HOSTS.replace("'two'", "'one'"));
        assert_eq!(twice, "m.toml: clusters: one is there twice");
        let both = refused(&format!(
            "{HOSTS}verify = {{ repeat = 1, calls = [{{ grpc = 'a', http = '/' }}] }}"
        ));
        for words in ["verify.repeat: at least 2", "verify.calls[0]: give either grpc or http"] {
            assert!(both.contains(words), "{both}");
        }
        let odd = refused(&format!(
            "{HOSTS}verify = {{ calls = [{{ grpc = '/a', message = '0' }}] }}"
        ));
        assert!(odd.contains("\"0\" is not hexadecimal"), "{odd}");
        let falls = refused(&format!("{HOSTS}run = {{ steps = [20, 5] }}"));
        assert_eq!(falls, "m.toml: run.steps: must rise from above 0");
    }
}
