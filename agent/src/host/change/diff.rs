//! The unified diff of two texts, as diff(1) prints it, of what a change would make of a file or a table.

use std::fmt::Write;
use std::ops::Range;

/// Lines around a difference that are shown with it.
const CONTEXT: usize = 3;
/// Most pairs of lines that are compared, of what both texts don't have at their beginning and end in common. Beyond, all of
/// the one is shown as gone and all of the other as new.
const MOST_PAIRS: usize = 4 << 20;

/// The unified diff that makes `wanted` of `there`, both under this name; empty when they are the same.
pub fn diff(there: &str, wanted: &str, name: &str) -> String {
    let old: Vec<&str> = there.split_inclusive('\n').collect();
    let new: Vec<&str> = wanted.split_inclusive('\n').collect();
    let changes = changes(&old, &new);
    let mut text = String::new();
    // Those that are so near to each other that their lines of context meet are shown as one.
    for hunk in changes.chunk_by(|one, next| next.0.start - one.0.end <= 2 * CONTEXT) {
        let ([(first_old, first_new), ..], [.., (last_old, last_new)]) = (hunk, hunk) else {
            continue;
        };
        let before = CONTEXT.min(first_old.start);
        let after = CONTEXT.min(old.len() - last_old.end);
        let shown_old = first_old.start - before..last_old.end + after;
        let shown_new = first_new.start - before..last_new.end + after;
        if text.is_empty() {
            text = format!("--- {name}\n+++ {name}\n");
        }
        let _ = writeln!(text, "@@ -{} +{} @@", lines(&shown_old), lines(&shown_new));
        let mut at = shown_old.start;
        for (gone, come) in hunk {
            show(&mut text, ' ', &old[at..gone.start]);
            show(&mut text, '-', &old[gone.clone()]);
            show(&mut text, '+', &new[come.clone()]);
            at = gone.end;
        }
        show(&mut text, ' ', &old[at..shown_old.end]);
    }
    text
}

fn show(text: &mut String, sign: char, lines: &[&str]) {
    for line in lines {
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// The first line's number and how many there are; of none the line before.
fn lines(range: &Range<usize>) -> String {
    match range.len() {
        0 => format!("{},0", range.start),
        1 => format!("{}", range.start + 1),
        count => format!("{},{count}", range.start + 1),
    }
}

/// The lines of `old` that go, and those of `new` that come in their place, in order; as few as there can be.
fn changes(old: &[&str], new: &[&str]) -> Vec<(Range<usize>, Range<usize>)> {
    let head = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let ends = old_rest.iter().rev().zip(new_rest.iter().rev());
    let tail = ends.take_while(|(old, new)| old == new).count();
    let (old, new) = (&old_rest[..old_rest.len() - tail], &new_rest[..new_rest.len() - tail]);
    let mut changes = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    let kept = common(old, new).into_iter().chain([(old.len(), new.len())]);
    for (next_old, next_new) in kept {
        if (at_old, at_new) != (next_old, next_new) {
            changes.push((head + at_old..head + next_old, head + at_new..head + next_new));
        }
        (at_old, at_new) = (next_old + 1, next_new + 1);
    }
    changes
}

/// The places of a longest list of lines that are in both in this order.
fn common(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let width = new.len() + 1;
    if old.len().saturating_mul(new.len()) > MOST_PAIRS {
        return Vec::new();
    }
    // How long that list is for what is left of both, from each pair of places on.
    let mut longest = vec![0u32; (old.len() + 1) * width];
    for (i, line) in old.iter().enumerate().rev() {
        for (j, other) in new.iter().enumerate().rev() {
            longest[i * width + j] = match line == other {
                true => longest[(i + 1) * width + j + 1] + 1,
                false => longest[(i + 1) * width + j].max(longest[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j, mut found) = (0, 0, Vec::new());
    while i < old.len() && j < new.len() {
        if old[i] == new[j] {
            found.push((i, j));
            (i, j) = (i + 1, j + 1);
        } else if longest[(i + 1) * width + j] >= longest[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies a diff to the text that it is of.
    fn patched(there: &str, diff: &str) -> String {
        let old: Vec<&str> = there.split_inclusive('\n').collect();
        let (mut at, mut made) = (0, String::new());
        let mut lines = diff.split_inclusive('\n').skip(2).peekable();
        while let Some(line) = lines.next() {
            if let Some(head) = line.strip_prefix("@@ -") {
                let numbers = head.split_once(' ').unwrap().0;
                let (start, count) = numbers.split_once(',').unwrap_or((numbers, "1"));
                let start: usize = start.parse().unwrap();
                let first = if count == "0" { start } else { start - 1 };
                made.extend(old[at..first].iter().copied());
                at = first;
                continue;
            }
            let ends = lines.next_if(|next| next.starts_with('\\')).is_some();
            let whole = if ends { line.trim_end_matches('\n') } else { line };
            at += usize::from(!whole.starts_with('+'));
            made.push_str(whole.strip_prefix([' ', '+']).unwrap_or_default());
        }
        made.extend(old[at..].iter().copied());
        made
    }

    #[test]
    fn difference_is_shown_with_three_lines_around_it() {
        let there = "1\n2\n3\n4\n5\n6\n7\n8\n9\n";
        let wanted = there.replace("5\n", "five\n");
        let shown = "--- a\n+++ a\n@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n";
        assert_eq!(diff(there, &wanted, "a"), shown);
        assert_eq!(diff(there, there, "a"), "");
    }

    #[test]
    fn new_text_is_a_difference_of_nothing() {
        assert_eq!(diff("", "1\n2\n", "a"), "--- a\n+++ a\n@@ -0,0 +1,2 @@\n+1\n+2\n");
        assert_eq!(
            diff("1", "", "a"),
            "--- a\n+++ a\n@@ -1 +0,0 @@\n-1\n\\ No newline at end of file\n"
        );
    }

    #[test]
    fn texts_without_a_bound_are_shown_whole() {
        let [there, wanted] =
            ["a", "b"].map(|word| (0..3000).map(|line| format!("{word}{line}\n")).collect::<String>());
        let shown = diff(&there, &(wanted + "a0\n"), "a");
        assert_eq!(shown.lines().filter(|line| line.starts_with('-')).count(), 3001);
    }

    proptest::proptest! {
        #[test]
        fn diff_makes_one_of_the_other(there in "([abc]\n){0,30}c?", wanted in "([abc]\n){0,30}c?") {
            let shown = diff(&there, &wanted, "a");
            proptest::prop_assert_eq!(shown.is_empty(), there == wanted);
            proptest::prop_assert_eq!(patched(&there, &shown), wanted, "{}", shown);
        }
    }
}
