//! Findings for people: one line each, and another for what to do.

use crate::part::{Finding, Level};
use crate::terminal::one_line;

/// Width of the columns before a finding's words.
const INDENT: usize = 35;

pub(super) fn lines(findings: &[Finding]) -> String {
    findings.iter().map(line).collect()
}

pub(super) fn line(finding: &Finding) -> String {
    let Finding {
        code,
        name,
        level,
        detail,
        fix,
    } = finding;
    let level = match level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Failed => "FAILED",
        Level::Skipped => "skipped",
    };
    let fix = fix
        .as_ref()
        .map_or_else(String::new, |fix| format!("{:INDENT$}fix: {}\n", "", one_line(fix)));
    format!("{level:<9}{code}  {name:<18}{}\n{fix}", one_line(detail))
}

/// What failed, each thing once.
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
        assert_eq!(lines(&found), text);
        assert_eq!(failures(&found), "IVA801 docker");
    }
}
