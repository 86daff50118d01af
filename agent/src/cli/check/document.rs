//! Findings for programs.

use anyhow::Result;
use serde::Serialize;

use crate::part::Finding;

/// Version of the document: it changes when a key goes or means something else, and not when one comes.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    findings: &'a [Finding],
}

/// The document as it is printed.
pub(super) fn json(findings: &[Finding]) -> Result<String> {
    let document = Document {
        version: VERSION,
        findings,
    };
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Subject;

    /// Programs read it: a change of what is there already needs another version.
    #[test]
    fn document_is_that_of_the_golden_example() {
        let subject = Subject::new("IVA801", "docker");
        let findings = [
            subject.ok("answers at /run/docker.sock"),
            subject.warning(
                "a restart of dockerd stops the container",
                "put \"live-restore\": true into it",
            ),
            subject.failed("no answer", "`systemctl start docker`"),
            subject.skipped("no container is configured"),
        ];
        let golden = include_str!("../../../tests/golden/check/check.json");
        assert_eq!(json(&findings).unwrap(), golden);
    }
}
