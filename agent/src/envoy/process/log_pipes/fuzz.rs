//! Fuzz target: lines are the same however they come.

use std::cell::RefCell;

use super::line::{Entry, Lines};

/// Reads Envoy's output; the first byte says after how many bytes a read ends.
pub(crate) fn output(input: &[u8]) {
    let Some((chunk, bytes)) = input.split_first() else {
        return;
    };
    let whole = lines(std::iter::once(bytes));
    let pieces = lines(bytes.chunks(usize::from(*chunk).max(1)));
    assert_eq!(whole, pieces, "the lines are the same, however they come");
    for line in whole {
        let entry = Entry::parse(&line);
        assert!(!line.contains('\n') && entry.message.len() + entry.logger.len() <= line.len());
    }
}

fn lines<'a>(reads: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut lines, found) = (Lines::default(), RefCell::new(Vec::new()));
    for read in reads {
        lines.push(read, |line| found.borrow_mut().push(line.to_owned()));
    }
    found.into_inner()
}
