//! Properties of a report, whatever the lines of the run.

use super::{lines as run_lines, page, picture};

/// The lines of a run.
pub(crate) fn lines(input: &[u8]) {
    let Ok(run) = run_lines::parse(&String::from_utf8_lossy(input)) else {
        return;
    };
    let page = page::text(&run, "run.svg").expect("a run has a page");
    let picture = picture::draw(&run).expect("a run has a picture");
    for text in [page, picture] {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'));
    }
}
