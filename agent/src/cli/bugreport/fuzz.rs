//! Fuzz targets: what a report takes of the journal and of Envoy, and what it cuts out of everything.

use super::{dump, fields, journal, secrets};

/// A line of the journal.
pub(crate) fn journal_line(text: &str) {
    if let Some(line) = journal::line(text) {
        assert!(line.ends_with('\n') && text.contains("__REALTIME_TIMESTAMP"));
    }
}

/// Any text: what is cut leaves nothing to cut.
pub(crate) fn secrets_in_text(text: &str) {
    let scrubbed = secrets::scrubbed(text);
    assert_eq!(secrets::scrubbed(&scrubbed), scrubbed);
    assert!(
        !scrubbed
            .lines()
            .any(|line| line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----"))
    );
    let statistics = secrets::known_statistics(text);
    assert_eq!(secrets::known_statistics(&statistics), statistics);
}

/// Documents of Envoy's: what is taken of one is all taken again.
pub(crate) fn envoy_fields(text: &str) {
    for fields in [fields::CONFIG_DUMP, fields::SERVER_INFO, fields::CERTS] {
        let Ok(known) = secrets::known_fields(text, fields) else {
            return;
        };
        let again = secrets::known_fields(&known, fields).expect("it is JSON");
        assert_eq!(again.lines().count(), known.lines().count());
    }
    assert!(dump(text).is_ok());
}
