//! What a source of metrics answers, for a fuzzer.

use super::exposition::{Format, Merged};
use super::targets::Targets;

/// A page is read again as it was written, and has its end once.
pub(crate) fn exposition(text: &str) {
    for from in [Format::Text, Format::OpenMetrics] {
        for to in [Format::Text, Format::OpenMetrics] {
            let mut page = Merged::new(to);
            let added = page.add(text, from).is_ok();
            let page = page.finish(Merged::new(to));
            assert!(added || page.len() <= "# EOF\n".len());
            let mut again = Merged::new(to);
            assert!(again.add(&page, to).is_ok());
            assert_eq!(again.finish(Merged::new(to)), page);
        }
    }
}

/// Istio's annotations.
pub(crate) fn annotations(text: &str) {
    if let Ok(targets) = Targets::parse(text) {
        assert!(
            targets
                .iter()
                .all(|target| target.port > 0 && target.path.starts_with('/'))
        );
    }
}
