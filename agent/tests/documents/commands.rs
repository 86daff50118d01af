//! Every command that a document shows is run by a test, or the table says why it can't be.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use By::{Case, Instead, Script, Test, Untried};

use super::{documents, manifest, texts};

/// Who runs a command. What is shown by a case, a script or a test has the command's verb and options in its text.
enum By {
    /// The case of this name; the text is that of its story.
    Case(&'static str),
    /// A script of the repository.
    Script(&'static str),
    /// A test in a file of the repository.
    Test(&'static str, &'static str),
    /// A case that does what the command would, and why not the command.
    Instead(&'static str, &'static str),
    /// Nobody, and why.
    Untried(&'static str),
}

const DIRECT: &str = "the case gives the API server itself what is piped there";
const CLOUD: &str = "it asks Google's cloud";
const IMAGES: &str = "it asks for images of registries; README beside it says what was tried";
const BUILT: &str = "the case runs the program that the target builds";
const EXPLAIN: &str = "explain names faults of the VM, and proxy shows what Envoy has";
const SIGNED: &str = "a bundle that is signed as docs/operate.md says joins, and `config validate` refuses another";
const LIFE: &str = "no call fails while the agent is restarted and killed";

/// Commands by their first words, the longest that fit.
#[rustfmt::skip]
const COMMANDS: &[(&str, &[By])] = &[
    ("ansible-playbook", &[Untried("it asks for a host to log in; README beside it says what was tried")]),
    ("apt install ./istio-vm-agent_*.deb", &[Case("first contact, and a purge that leaves nothing")]),
    ("cargo build", &[Script(".ci/run")]),
    ("cp", &[Untried("the operator's own copy of a file")]),
    ("docker build", &[Untried(IMAGES)]),
    ("docker run", &[Untried(IMAGES)]),
    ("gcloud", &[Untried(CLOUD)]),
    ("gpg", &[Script("packaging/test/release")]),
    ("istio-vm-agent check", &[Case("check: asks for one certificate, and only what it is told to")]),
    ("istio-vm-agent config show", &[Case(SIGNED)]),
    ("istio-vm-agent config validate", &[Case(SIGNED)]),
    ("istio-vm-agent down", &[Case("from nothing to a call by `up`, and back by `down`")]),
    ("istio-vm-agent explain", &[Case(EXPLAIN), Case(LIFE)]),
    ("istio-vm-agent import", &[Case("the switch from Istio's own agent leaves nothing of it, and goes back")]),
    ("istio-vm-agent manifests", &[Case("the API server accepts all forms of manifests")]),
    ("istio-vm-agent plan", &[Case("status answers in 200 ms while the agent is stopped, and when it is gone")]),
    ("istio-vm-agent proxy", &[Case(EXPLAIN)]),
    ("istio-vm-agent revert", &[Case("SIGTERM: calls in flight finish, the host is as before")]),
    ("istio-vm-agent status", &[Case("reload at 200 calls a second: none fails")]),
    ("istio-vm-agent up", &[Case("from nothing to a call by `up`, and back by `down`"), Test("agent/src/cli/up/source.rs", "each_source_becomes_a_configuration_that_is_good")]),
    ("istio-vm-ctl", &[Case("every command of docs/migrate.md works, in its order")]),
    ("istioctl x workload entry configure", &[Script("tests/harness/real.rs")]),
    ("journalctl", &[Case(LIFE)]),
    ("kubectl", &[Instead("the API server accepts all forms of manifests", DIRECT)]),
    ("make deb", &[Instead("first contact, and a purge that leaves nothing", "the case has what packaging/build makes, as CI runs it")]),
    ("make demo", &[Instead("demo: its page brings the VM in, and out as it came", BUILT)]),
    ("make playground", &[Instead("demo: the playground takes commands, and ends with its shell", BUILT)]),
    ("make test", &[Untried("this very test is one of those that it runs")]),
    ("make unit", &[Untried("this very test is one of those that it runs")]),
    ("minisign", &[Case(SIGNED)]),
    ("packer", &[Untried(CLOUD)]),
    ("sha256sum --check", &[Script("packaging/test/release")]),
    ("sha256sum cluster.env", &[Case(SIGNED)]),
    ("sha256sum istio-vm-agent.deb", &[Script("packaging/test/cloud-init")]),
    ("systemctl", &[Case(LIFE)]),
];

#[test]
fn every_command_is_run_by_a_test_or_has_its_reason() {
    let root = manifest().join("..");
    let stories = stories(&root);
    let makefile = fs::read_to_string(root.join("Makefile")).unwrap();
    let (mut faults, mut met) = (BTreeSet::new(), BTreeSet::new());
    for document in documents(&root) {
        for command in commands(&fs::read_to_string(&document).unwrap()) {
            let row = COMMANDS.iter().filter(|(words, _)| begins_with(&command, words));
            let Some((words, by)) = row.max_by_key(|(words, _)| words.len()) else {
                faults.insert(format!("{}: the table lacks {command:?}", document.display()));
                continue;
            };
            met.insert(words);
            if let Some(target) = command.strip_prefix("make ") {
                assert!(makefile.contains(&format!("\n{target}:")), "make {target}");
            }
            let shown: String = by
                .iter()
                .map(|by| text(by, &root, &stories, &command, &mut faults))
                .collect();
            for word in needed(&command, words)
                .iter()
                .filter(|word| !shown.is_empty() && !has(&shown, word))
            {
                faults.insert(format!(
                    "{}: {word} of {command:?} is not where it is said to be run",
                    document.display()
                ));
            }
        }
    }
    faults.extend(
        COMMANDS
            .iter()
            .filter(|(words, _)| !met.contains(words))
            .map(|(words, _)| format!("no document has {words:?}")),
    );
    assert!(
        faults.is_empty(),
        "{}",
        faults.into_iter().collect::<Vec<_>>().join("\n")
    );
}

/// `sh` here; `toml` by the programs' own tests; `promql` by a case; `hcl` below; the others are there to be looked at.
#[test]
fn blocks_are_of_kinds_that_a_test_reads() {
    let root = manifest().join("..");
    for document in documents(&root) {
        let text = fs::read_to_string(&document).unwrap();
        let fences = text.lines().filter_map(|line| line.trim_start().strip_prefix("```"));
        for kind in fences.step_by(2) {
            let kinds = ["sh", "toml", "promql", "hcl", "mermaid", "text"];
            assert!(kinds.contains(&kind), "{}: a block of {kind:?}", document.display());
        }
    }
}

#[test]
fn module_of_terraform_is_given_the_variables_that_it_needs() {
    let folder = manifest().join("../packaging/terraform");
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let (readme, variables) = (read("README.md"), read("variables.tf"));
    let block = readme.split("```hcl\n").nth(1).unwrap().split("```").next().unwrap();
    let given: BTreeSet<&str> = block
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.trim())
        .collect();
    let declared = variables
        .split("\nvariable \"")
        .map(|text| text.trim_start_matches("variable \""));
    let mut known = BTreeSet::new();
    for text in declared {
        let name = text.split('"').next().unwrap();
        assert!(
            given.contains(name) || text.contains("\n  default "),
            "{name} is not given"
        );
        known.insert(name);
    }
    assert_eq!(given.difference(&known).collect::<Vec<_>>(), [&"source"]);
}

/// The commands in blocks of `sh`, and those of our own programs in backticks. One with `…` is no whole one, and two words in
/// backticks are a name.
fn commands(text: &str) -> Vec<String> {
    let whole = text.replace("\\\n", " ");
    let blocks = whole
        .split("```sh\n")
        .skip(1)
        .filter_map(|block| block.split("```").next());
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.split(" #").next());
    let prose: String = whole.split("```").step_by(2).collect();
    let quotes = prose
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|quote| quote.replace('\n', " "));
    let own = quotes.filter(|quote| quote.starts_with("istio-vm-") && quote.split_whitespace().count() > 2);
    let commands = lines.flat_map(|line| {
        line.replace(" && ", " | ")
            .split(" | ")
            .map(str::to_owned)
            .collect::<Vec<_>>()
    });
    let commands = commands
        .chain(own)
        .map(|command| command.split_whitespace().collect::<Vec<_>>().join(" "));
    commands
        .filter(|command| !command.is_empty() && !command.contains('…'))
        .collect()
}

fn begins_with(command: &str, words: &str) -> bool {
    command
        .strip_prefix(words)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// Words that a text has which runs the command: of our own programs the verb, else the program, and the long options.
fn needed<'a>(command: &'a str, row: &'a str) -> Vec<&'a str> {
    let named = row.split(' ').skip(usize::from(row.starts_with("istio-vm-agent")));
    let verb = named.take(2).filter(|word| !word.contains(['.', '-']));
    let options = command.split(' ').filter(|word| word.starts_with("--"));
    verb.chain(options.map(|option| option.split('=').next().unwrap()))
        .collect()
}

/// As a word, or an option as the field that it is in Rust.
fn has(text: &str, word: &str) -> bool {
    let field = format!("{}: ", word.trim_start_matches('-').replace('-', "_"));
    let begins = |before: char| text.contains(&format!("{before}{word}"));
    ['"', ' ', '\n'].into_iter().any(begins) || word.starts_with("--") && text.contains(&field)
}

/// The text that is to have the words; empty where nobody runs the command itself.
fn text(by: &By, root: &Path, stories: &[String], command: &str, faults: &mut BTreeSet<String>) -> String {
    let story = |name: &str| stories.iter().find(|story| story.contains(&format!("\"{name}\"")));
    if let Untried("") | Instead(_, "") = by {
        faults.insert(format!("{command:?} is not run, and nobody says why"));
    }
    let found = match by {
        Untried(_) => return String::new(),
        Instead(name, _) => story(name).map(|_| String::new()),
        Case(name) => story(name).cloned(),
        Script(path) => fs::read_to_string(root.join(path)).ok(),
        Test(path, name) => fs::read_to_string(root.join(path))
            .ok()
            .filter(|text| text.contains(&format!("fn {name}("))),
    };
    found.unwrap_or_else(|| {
        faults.insert(format!("what is to run {command:?} isn't there"));
        String::new()
    })
}

/// Each story of the cases, without its comments: a file, with the folder of its name.
fn stories(root: &Path) -> Vec<String> {
    let cases = root.join("tests/cases");
    let entries = fs::read_dir(&cases).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let whole = |path: PathBuf| {
        let folder = path.with_extension("");
        let beside = if folder.is_dir() {
            texts(&folder, |_| true)
        } else {
            String::new()
        };
        let text = fs::read_to_string(path).unwrap() + &beside;
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        code.map(|line| format!("{line}\n")).collect()
    };
    files.map(whole).collect()
}
