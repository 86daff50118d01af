//! Answers of a source of metrics, for a fuzzer.

use super::exposition::{Dropped, Merged};
use super::format::Format;
use super::targets::Targets;

/// A page is read again as it was written, whole, and has its end once.
pub(crate) fn exposition(text: &str) {
    for from in [Format::Text, Format::OpenMetrics] {
        for to in [Format::Text, Format::OpenMetrics] {
            let mut page = Merged::new(to);
            page.add(text, from, &["istio_"]);
            let page = page.finish(Merged::new(to));
            assert!(!page.lines().any(|line| line.starts_with("istio_")));
            let mut again = Merged::new(to);
            assert_eq!(again.add(&page, to, &[]), Dropped::default());
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
