//! Findings for people: one line each, and another for what to do.

use crate::part::{Finding, Level};
use crate::terminal::{Paint, Tone, one_line};

/// Width of the columns before a finding's words.
const INDENT: usize = 35;
/// Width of the column of levels.
const LEVEL: usize = 9;

pub(super) fn lines<'a>(findings: impl IntoIterator<Item = &'a Finding>, paint: Paint) -> String {
    findings.into_iter().map(|finding| line(finding, paint)).collect()
}

/// `37 fine, 3 warnings, 5 not asked`; a level that nothing has is left out.
pub(super) fn counts(findings: &[Finding]) -> String {
    let count = |level, one: &str, more: &str| {
        let count = findings.iter().filter(|finding| finding.level == level).count();
        let word = if count == 1 { one } else { more };
        (count > 0).then(|| format!("{count} {word}"))
    };
    [
        count(Level::Ok, "fine", "fine"),
        count(Level::Failed, "failed", "failed"),
        count(Level::Warning, "warning", "warnings"),
        count(Level::Skipped, "not asked", "not asked"),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>()
    .join(", ")
}

pub(super) fn line(finding: &Finding, paint: Paint) -> String {
    let Finding {
        code,
        name,
        level,
        detail,
        fix,
    } = finding;
    let (word, tone) = match level {
        Level::Ok => ("ok", Some(Tone::Good)),
        Level::Warning => ("warning", Some(Tone::Warning)),
        Level::Failed => ("FAILED", Some(Tone::Bad)),
        Level::Skipped => ("skipped", None),
    };
    let level = match tone {
        Some(tone) => paint.paint(tone, word),
        None => word.into(),
    };
    let rest = LEVEL - word.len();
    let fix = fix
        .as_ref()
        .map_or_else(String::new, |fix| format!("{:INDENT$}fix: {}\n", "", one_line(fix)));
    format!("{level}{:rest$}{code}  {name:<18}{}\n{fix}", "", one_line(detail))
}

/// Subjects that failed, each once.
pub(super) fn failures(findings: &[Finding]) -> String {
    let failed = findings.iter().filter(|finding| finding.level == Level::Failed);
    let mut names: Vec<String> = failed
        .map(|Finding { code, name, .. }| format!("{code} {name}"))
        .collect();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Subject;

    #[test]
    fn finding_is_a_line_with_what_to_do_below() {
        let subject = Subject::new("IVA801", "docker");
        let found = [
            subject.ok("answers"),
            subject.failed("no\nanswer", "systemctl start docker"),
        ];
        let text = "ok       IVA801  docker            answers\n\
                    FAILED   IVA801  docker            no\\nanswer\n\
                    \x20                                  fix: systemctl start docker\n";
        assert_eq!(lines(&found, Paint::PLAIN), text);
        let colored = text
            .replacen("ok ", "\u{1b}[32mok\u{1b}[0m ", 1)
            .replace("FAILED", "\u{1b}[1;31mFAILED\u{1b}[0m");
        assert_eq!(lines(&found, Paint::COLORED), colored);
        assert_eq!(failures(&found), "IVA801 docker");
    }

    #[test]
    fn findings_are_counted_by_their_level() {
        let subject = Subject::new("IVA801", "docker");
        let found = [
            subject.ok("a"),
            subject.ok("b"),
            subject.warning("c", "d"),
            subject.skipped("e"),
        ];
        assert_eq!(counts(&found), "2 fine, 1 warning, 1 not asked");
        assert_eq!(counts(&[subject.failed("f", "g")]), "1 failed");
    }
}
