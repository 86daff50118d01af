//! One judge for every verb: what is wrong in a configuration, or in a file of this VM that it names, is refused by all of
//! them in the same words, with its place, and with nothing touched.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use clap::Parser as _;

use super::examination::examine;
use super::selector::Selector;
use crate::cli::configuration::prepare;
use crate::cli::{Arguments, CONFIG, block_on, code, config, dispatch};
use crate::config::ConfigError;
use crate::config::tests::judged::{self as configurations, rows, text_of};
use crate::host::Host;
use crate::join::tests::BUNDLE;
use crate::join::tests::judged::{self as bundles, edited, tree};

/// Inputs, at the least.
const LEAST: usize = 500;

/// The files of a VM, in a folder of their own.
pub(super) struct Files(tempfile::TempDir);

impl Files {
    pub(super) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::create_dir(files.at("b")).unwrap();
        files
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    pub(super) fn write_bundle(&self) {
        for (name, text) in BUNDLE {
            self.write(&format!("b/{name}"), text);
        }
    }

    /// A configuration that joins from the bundle.
    pub(super) fn write_directory_join(&self) {
        self.write(
            "c.toml",
            &format!("[join]\ndirectory = {{ path = {:?} }}\n", self.at("b")),
        );
    }

    /// The error of `run` about the configuration; `None` where it would take it.
    ///
    /// # Errors
    /// When it may be over at the next try.
    pub(super) fn judged(&self) -> Result<Option<ConfigError>, String> {
        match block_on(prepare(&self.at("c.toml"), &Host::system())) {
            Ok(_) => Ok(None),
            Err(error) => match error.downcast::<ConfigError>() {
                Ok(error) => Ok(Some(error)),
                Err(error) => Err(format!("passing: {error:#}")),
            },
        }
    }

    /// The error with which all verbs refuse the configuration.
    ///
    /// # Errors
    /// When one takes it, says anything else than the others, or touches a file.
    fn refusal(&self) -> Result<ConfigError, String> {
        let (path, before) = (self.at("c.toml"), tree(self.0.path()));
        // Else `run` would do what it is for.
        let error = self.judged()?.ok_or("it is taken")?;
        let wanted = error.to_string();
        for (verb, said) in said(&path)? {
            if said != wanted {
                return Err(format!("`{verb}` says {said:?}, and others {wanted:?}"));
            }
        }
        match tree(self.0.path()) == before {
            true => Ok(error),
            false => Err("a file was touched".to_owned()),
        }
    }
}

/// The words of each verb that reads the configuration.
fn said(path: &Path) -> Result<Vec<(&'static str, String)>, String> {
    let mut said = Vec::new();
    for verb in ["run", "plan", "reload"] {
        let ended = dispatch(&Arguments::parse_from([
            Path::new("istio-vm-agent"),
            Path::new("--config"),
            path,
            Path::new(verb),
        ]));
        match (code(&ended), ended) {
            (CONFIG, Err(error)) => said.push((verb, format!("{error:#}"))),
            (other, ended) => return Err(format!("`{verb}` ends with {other}: {ended:?}")),
        }
    }
    let report = block_on(config::judged(path)).map_err(|error| format!("config validate: {error:#}"))?;
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    said.push(("config validate", errors.join("\n")));
    let only: Selector = ["IVA201", "IVA202"].iter().map(|code| code.parse().unwrap()).collect();
    let examination = block_on(examine(path, &only, None, &mut |_| {})).map_err(|error| format!("check: {error:#}"))?;
    let error = examination.error.map(|error| format!("{error:#}"));
    said.push(("check", error.unwrap_or_default()));
    Ok(said)
}

/// The fault in how a row's input is refused; `None` where all is as it should be.
fn problem(files: &Files, begins: &str, holds: &str) -> Option<String> {
    let error = match files.refusal() {
        Ok(error) => error,
        Err(problem) => return Some(problem),
    };
    let text = error.to_string();
    if !(text.starts_with(begins) && text.contains(holds)) {
        return Some(format!("{begins:?} and {holds:?} are missing in {text}"));
    }
    let is_placed = |name: &str| Path::new(name).starts_with(files.0.path());
    let without_place = error.faults().iter().find(|fault| !is_placed(&fault.place.name));
    without_place.map(|fault| format!("no file: {fault}"))
}

/// A kubeconfig with these fields of its cluster and its user.
fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nclusters:\n- name: c\n  cluster:\n    server: https://api\n{cluster}\
         users:\n- name: u\n  user:\n{user}contexts:\n- name: x\n  context:\n    cluster: c\n    user: u\n\
         current-context: x\n"
    )
}

/// Joins that name files, and the keys of those.
const NAMING: [(&str, &[&str]); 3] = [
    (
        "[join.kubernetes]\nserver = 'https://a'\nnamespace = 'n'\nworkload_group = 'w'\n",
        &["token_file", "ca_file"],
    ),
    (
        "[join.kubernetes]\nnamespace = 'n'\nworkload_group = 'w'\n",
        &["kubeconfig"],
    ),
    ("[join.https]\nurl = 'https://a/'\n", &["ca_file", "header_file"]),
];

/// Configurations each of which names one file that is not there: the text, and the key.
fn without_a_file(files: &Files) -> Vec<(String, String)> {
    let there = |key: &str| format!("{key} = {:?}\n", files.at(key));
    let mut inputs = Vec::new();
    for (join, keys) in NAMING {
        let table = join.lines().next().unwrap_or_default().trim_matches(['[', ']']);
        for missing in keys {
            let others = keys.iter().filter(|key| *key != missing).map(|key| there(key));
            let text = format!(
                "{join}{missing} = {:?}\n{}",
                files.at("none"),
                others.collect::<String>()
            );
            inputs.push((text, format!("{table}.{missing}")));
        }
    }
    inputs
}

/// Kubeconfigs that are broken: the text, the line, and what the error holds.
fn kubeconfigs() -> Vec<(String, &'static str, &'static str)> {
    [kubeconfigs_without(), kubeconfigs_with()].concat()
}

/// Kubeconfigs in which something is missing, or another name.
fn kubeconfigs_without() -> Vec<(String, &'static str, &'static str)> {
    let good = kubeconfig("", "    token: t\n");
    let edited = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    vec![
        (
            String::new(),
            "",
            "has no current-context: name one in join.kubernetes.context",
        ),
        ("a: [".to_owned(), ":1:", "is not valid YAML, or no kubeconfig"),
        (
            "clusters: 7\n".to_owned(),
            ":1:11",
            "lists of clusters, users and contexts",
        ),
        (edited("- name: c\n  cluster", "- cluster"), ":", "each with a name"),
        (edited("current-context: x\n", ""), "", "has no current-context"),
        (
            edited("current-context: x", "current-context: ''"),
            "",
            "has no current-context",
        ),
        (
            edited("current-context: x", "current-context: y"),
            ":15:18",
            "has no context \"y\": it has \"x\"",
        ),
        (
            edited("    cluster: c\n", "    cluster: d\n"),
            ":13:14",
            "has no cluster \"d\": it has \"c\"",
        ),
        (
            edited("    cluster: c\n", ""),
            ":11:9",
            "has no cluster \"\": it has \"c\"",
        ),
        (
            edited("    user: u\n", "    user: v\n"),
            ":14:11",
            "has no user \"v\": it has \"u\"",
        ),
        (edited("https://api", "http://api"), ":5:13", "must be https://"),
        (edited("https://api", "api:6443"), ":5:13", "must be https://"),
        (
            edited("    server: https://api\n", "    {}\n"),
            ":3:9",
            "must be https://",
        ),
    ]
}

/// Kubeconfigs that have something that is refused.
fn kubeconfigs_with() -> Vec<(String, &'static str, &'static str)> {
    vec![
        (
            kubeconfig("    insecure-skip-tls-verify: true\n", "    token: t\n"),
            ":6:31",
            "set certificate-authority",
        ),
        (
            kubeconfig("    tls-server-name: a\n", "    token: t\n"),
            ":6:22",
            "not supported: give the cluster",
        ),
        (
            kubeconfig("    proxy-url: a\n", "    token: t\n"),
            ":6:16",
            "take them out",
        ),
        (
            kubeconfig("    certificate-authority: none.pem\n", "    token: t\n"),
            ":6:28",
            "none.pem is missing: put it there",
        ),
        (
            kubeconfig("    certificate-authority-data: '?'\n", "    token: t\n"),
            ":6:33",
            "is not base64: copy",
        ),
        (
            kubeconfig("", "    {}\n"),
            ":7:9",
            "has none of client-certificate with client-key, token",
        ),
        (kubeconfig("", "    token: 'a b'\n"), ":9:12", "holds no bearer token"),
        (
            kubeconfig("", "    token: ''\n"),
            ":9:12",
            "is empty: put a bearer token",
        ),
        (
            kubeconfig("", "    client-certificate-data: YQ==\n    client-key-data: YQ==\n"),
            ":9:30",
            "are no pair in PEM: copy both again",
        ),
        (
            kubeconfig("", "    client-certificate: none.pem\n    client-key: none.key\n"),
            ":9:25",
            "client-certificate: ",
        ),
    ]
}

#[test]
fn fault_of_this_vm_is_refused_by_every_verb_in_the_same_words() {
    let (files, mut wrong, mut inputs) = (Files::new(), Vec::new(), 0);
    let mut judge = |input: &str, begins: &str, holds: &str| {
        inputs += 1;
        wrong.extend(problem(&files, begins, holds).map(|problem| format!("{input:?}: {problem}")));
    };
    let place = |begins: &str, file: &str, of: &str| match begins.strip_prefix(file) {
        Some(rest) => files.at(of).display().to_string() + rest,
        None => String::new(),
    };
    for (input, begins, holds) in rows(configurations::REFUSED) {
        files.write("c.toml", &text_of(&input));
        judge(&input, &place(&begins, "c.toml", "c.toml"), &holds);
    }
    files.write_directory_join();
    for (input, begins, holds) in rows(bundles::REFUSED) {
        files.write_bundle();
        let (name, text) = edited(&input);
        files.write(&format!("b/{name}"), &text);
        judge(&input, &place(&begins, "/b/", "b/"), &holds);
    }
    for (name, _) in BUNDLE {
        files.write_bundle();
        fs::remove_file(files.at("b").join(name)).unwrap();
        // Of hosts and of a token a VM may have no need.
        if !["hosts", "istio-token"].contains(&name) {
            judge(name, &files.at("b").join(name).display().to_string(), "is missing");
        }
    }
    files.write_bundle();
    for name in ["b/cluster.env", "b/mesh.yaml", "b/hosts", "b/root-cert.pem", "c.toml"] {
        let (path, text) = (files.at(name), fs::read(files.at(name)).unwrap());
        fs::write(&path, b"#\n# B\xfcro\n").unwrap();
        let begins = format!("{}:2: failed to read: is not UTF-8 text", path.display());
        judge("no text", &begins, "save it as UTF-8");
        fs::write(&path, "#".repeat(2 << 20)).unwrap();
        judge("too long", &path.display().to_string(), "put the right file there");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        judge("a directory", &path.display().to_string(), "put the right file there");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, text).unwrap();
    }
    let path = files.at("kubeconfig");
    let text = format!("[join.kubernetes]\nkubeconfig = {path:?}\nnamespace = 'n'\nworkload_group = 'w'\n");
    files.write("c.toml", &text);
    for (text, line, holds) in kubeconfigs() {
        files.write("kubeconfig", &text);
        judge(&text, &format!("{}{line}", files.at("kubeconfig").display()), holds);
    }
    assert!(inputs >= LEAST, "{inputs} inputs");
    assert!(
        wrong.is_empty(),
        "{} of {inputs} inputs:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn file_that_a_join_names_and_that_is_missing_is_refused_by_every_verb_with_its_key() {
    let files = Files::new();
    for (name, text) in [("token_file", "t"), ("ca_file", BUNDLE[2].1), ("header_file", "A: b")] {
        files.write(name, text);
        fs::set_permissions(files.at(name), PermissionsExt::from_mode(0o600)).unwrap();
    }
    for (text, key) in without_a_file(&files) {
        files.write("c.toml", &text);
        let line = text.lines().take_while(|line| !line.contains("/none")).count() + 1;
        let begins = format!("{}:{line}:1: {key}: ", files.at("c.toml").display());
        let problem = problem(&files, &begins, "/none is missing: put it there, or correct the path");
        assert_eq!(problem, None, "{text}");
    }
}
