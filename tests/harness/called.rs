//! The programs that this repository calls, found in its sources: where Rust names a program, and where a shell expects
//! one. More is found than is called. So a word counts when Rust starts it by that very name, or when there is such a
//! program on this machine: a call of a program that is nowhere fails where it stands.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use regex_lite::Regex;

use crate::programs::repository;

/// Where the sources are.
const SOURCES: [&str; 5] = [".ci", "Makefile", "agent", "packaging", "tests"];
/// For machines that have Google's programs, or Istio's; and this file's own examples.
const ELSEWHERE: [&str; 3] = ["packaging/gcp", "agent/tests/golden", "tests/harness/called.rs"];
/// Scripts that run on a booted VM, and may call programs that only the VM has.
const ON_A_VM: &str = "packaging/debian/";

/// Who calls a program.
#[derive(Debug, Default)]
pub struct Callers {
    /// On this machine.
    pub here: BTreeSet<String>,
    /// On a booted VM, or here.
    pub there: BTreeSet<String>,
}

/// All programs with their callers.
pub fn programs() -> Result<BTreeMap<String, Callers>> {
    let root = repository("");
    let mut files = Vec::new();
    for source in SOURCES {
        files_below(&root.join(source), &mut files)?;
    }
    let mut programs = BTreeMap::<String, Callers>::new();
    for file in files {
        let name = file.strip_prefix(&root)?.to_string_lossy().into_owned();
        if ELSEWHERE.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for program in Called::default().in_file(&name, &text)?.counted() {
            let callers = programs.entry(program).or_default();
            let there = name.starts_with(ON_A_VM) || text.contains("Booted");
            let callers = if there { &mut callers.there } else { &mut callers.here };
            callers.insert(name.clone());
        }
    }
    Ok(programs)
}

#[derive(Debug, Default)]
struct Called {
    surely: BTreeSet<String>,
    maybe: BTreeSet<String>,
}

impl Called {
    fn in_file(mut self, name: &str, text: &str) -> Result<Self> {
        if name.ends_with(".rs") {
            self.in_rust(text, name.contains("tests/"))?;
        } else if text.starts_with("#!") || name == "Makefile" {
            self.in_shell(&without_comments(text, "#"))?;
        }
        Ok(self)
    }

    /// `in_a_test`: of the product's own texts most are prose.
    fn in_rust(&mut self, text: &str, in_a_test: bool) -> Result<()> {
        const PROGRAM: &str = r"([a-z0-9][a-z0-9._+-]*|/(?:usr/)?s?bin/[a-z0-9._+-]+)";
        let text = &without_comments(text, "//");
        if !["Command", "Invocation", ".run(", "fn run("]
            .iter()
            .any(|it| text.contains(it))
        {
            return Ok(());
        }
        self.surely
            .extend(captures(r#"Command::new\(\s*"([a-z0-9/][^"]*)""#, text)?);
        for place in [
            // The arguments of a function that makes one, the first word of a line for it.
            format!(r#"(?:command|inside|new)\w*\((?:[^()"]*,\s*)?"{PROGRAM}[" ]"#),
            // A list that begins with it: no index, and not the arguments of a program named before.
            format!(r#"(?:[^,\s\w\])&]|[^"],)\s*&?\[\s*"{PROGRAM}""#),
            // Its arguments follow.
            format!(r#""{PROGRAM}",\s*&\["#),
            format!(r#"=\s*"{PROGRAM}";"#),
            r#""(/(?:usr/)?s?bin/[a-z0-9._+-]+)""#.to_owned(),
        ] {
            self.maybe.extend(captures(&place, text)?);
        }
        if in_a_test {
            let strings = captures(r#"(?s)"((?:[^"\\]|\\.)*)""#, text)?;
            for script in strings.iter().filter(|it| is_script(it)) {
                self.in_shell(script)?;
            }
        }
        Ok(())
    }

    fn in_shell(&mut self, text: &str) -> Result<()> {
        let ends = Regex::new(r#"[|&;(){}`\n"]"#)?;
        for command in ends.split(text) {
            let mut words = command.split_whitespace().skip_while(|word| is_before_a_command(word));
            let Some(word) = words.next() else { continue };
            self.maybe.insert(word.to_owned());
            // It takes another command.
            if matches!(word, "env" | "exec" | "nice") {
                self.maybe
                    .extend(words.find(|word| !is_before_a_command(word)).map(str::to_owned));
            }
        }
        Ok(())
    }

    /// Words that count.
    fn counted(self) -> impl Iterator<Item = String> {
        let maybe = self.maybe.into_iter().filter(|word| is_here(word));
        self.surely
            .into_iter()
            .filter(|word| !word.starts_with("/proc/"))
            .chain(maybe)
    }
}

/// True when a text is for a shell; else it is prose or data.
fn is_script(text: &str) -> bool {
    ["&&", "||", " | ", "; ", "$(", " >", "#!/bin/sh"]
        .iter()
        .any(|it| text.contains(it))
}

/// True for a word that a shell lets stand before a command; `root` is our scripts' own, and `sudo` is for who is not
/// root.
fn is_before_a_command(word: &str) -> bool {
    const WORDS: [&str; 14] = [
        "!", "do", "elif", "else", "if", "root", "sudo", "then", "time", "until", "while", "trap", "--", "@",
    ];
    WORDS.contains(&word) || word.contains('=') || word.starts_with('-')
}

fn captures(pattern: &str, text: &str) -> Result<Vec<String>> {
    let pattern = Regex::new(pattern).with_context(|| pattern.to_owned())?;
    let found = pattern.captures_iter(text).filter_map(|found| found.get(1));
    Ok(found.map(|found| found.as_str().to_owned()).collect())
}

fn without_comments(text: &str, mark: &str) -> String {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(mark));
    lines.collect::<Vec<_>>().join("\n")
}

/// True when this machine has a program of that name.
fn is_here(word: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_program = |file: &Path| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file();
    if word.contains('/') {
        return word.contains("bin/") && is_program(Path::new(word));
    }
    if !word.starts_with(|first: char| first.is_ascii_lowercase()) {
        return false;
    }
    std::env::split_paths(&path).any(|folder| is_program(&folder.join(word)))
}

fn files_below(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        files_below(&entry?.path(), files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(name: &str, text: &str) -> Vec<String> {
        Called::default().in_file(name, text).unwrap().counted().collect()
    }

    #[test]
    fn rust_starts_programs_in_many_ways() {
        let by_name = r#"let ghost = Command::new("no-such-program").arg("sed");"#;
        assert_eq!(counted("agent/src/x.rs", by_name), ["no-such-program"]);
        for text in [
            r#"host.run(&Invocation::new(["sed", "-n"]))"#,
            r#"network.run(Host::Vm, "sed", &["head"])"#,
            r#"cgroup::command_within(&self.network, "sed")?; Command"#,
            r#"command("sed -n p"); Command"#,
            r#"const EDITOR: &str = "sed"; Command"#,
            r#"let at = "/bin/sed"; Command"#,
        ] {
            let found = counted("agent/src/x.rs", text);
            assert!(found.iter().any(|it| it.ends_with("sed")), "{text}: {found:?}");
        }
        assert!(counted("agent/src/x.rs", r#"status["sed"]; Command"#).is_empty());
        assert!(counted("agent/src/x.rs", "// Command::new(\"sed\")\nCommand").is_empty());
        let script = r#"vm.run(&["sh", "-c", "x=1 sed p | head"])"#;
        assert_eq!(counted("tests/x.rs", script), ["head", "sed", "sh"]);
    }

    #[test]
    fn shell_has_commands_in_many_places() {
        let script = "#!/bin/sh\n# cat\nif ! root env A=b sed x; then tail -n \"$(head y)\" | sort; fi\ncat=uniq\n";
        assert_eq!(counted("packaging/x", script), ["env", "head", "sed", "sort", "tail"]);
    }
}
