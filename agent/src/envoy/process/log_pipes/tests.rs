use std::cell::RefCell;

use proptest::prelude::*;

use super::line::Lines;
use super::*;
use crate::host::{Host, System};

fn lines_of<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut lines, seen) = (Lines::default(), RefCell::new(Vec::new()));
    for chunk in chunks {
        lines.push(chunk, |line| seen.borrow_mut().push(line.to_owned()));
    }
    seen.into_inner()
}

#[test]
fn lines_come_whole_across_reads() {
    let chunks: [&[u8]; 5] = [b"one\ntw", b"o", b"\n\nth\xffree", b"\n", b"not yet"];
    assert_eq!(lines_of(chunks), ["one", "two", "th\u{fffd}ree"]);
}

#[test]
fn line_without_end_is_cut_and_the_next_one_is_whole() {
    let long = vec![b'x'; 100 << 10];
    let seen = lines_of([&long[..], &long[..], b"\nnext\n"]);
    assert_eq!(seen.len(), 2);
    assert!(seen[0].ends_with("x…") && seen[0].len() < 17 << 10);
    assert_eq!(seen[1], "next");
}

#[test]
fn entries_of_both_formats_have_a_level() {
    let configured = "2026-01-01T00:00:00.000000Z\twarning\tenvoy config source/common/x.cc:42\tgRPC config\tfor x rejected\tthread=7";
    let entry = Entry::parse(configured);
    assert_eq!(
        (entry.level, entry.logger, entry.message),
        (Level::Warning, "config", "gRPC config\tfor x rejected")
    );
    let built_in = "[2026-01-01 00:00:00.000][123][critical][main] [source/server/server.cc:131] error: a] b";
    let entry = Entry::parse(built_in);
    assert_eq!(
        (entry.level, entry.logger, entry.message),
        (Level::Critical, "main", "error: a] b")
    );
}

#[test]
fn entries_of_no_format_are_information() {
    for line in [
        "",
        "[",
        "[][][error",
        "a\tb\tc",
        "a\terror\tenvoy",
        "[a][b][error][c] d",
    ] {
        let entry = Entry::parse(line);
        if line != "[a][b][error][c] d" {
            assert_eq!((entry.level, entry.message), (Level::Info, line));
        }
    }
}

/// A case that needs root, to share a FIFO.
#[tokio::test(start_paused = true)]
async fn log_pipes_cut_and_count_a_flood_of_one_kind_at_no_cost_to_the_others() {
    let root = tempfile::tempdir().unwrap();
    let options = Options::bare(Host::new(root.path(), System));
    std::fs::create_dir_all(options.host.real_path(&options.paths.envoy())).unwrap();
    let output = LogPipes::open(&options).unwrap();
    for _ in 0..100_000 {
        output.access_line("GET / 200");
        output.own_line("2026-01-01T00:00:00.000000Z\tinfo\tenvoy main x.cc:1\tstill here\tthread=7");
    }
    let refused = |options: &Options| options.refusals.all().iter().map(|one| one.count).sum::<u64>();
    let cut = refused(&options);
    assert!(cut > 198_000, "{cut} lines were cut");
    output.own_line("2026-01-01T00:00:00.000000Z\twarning\tenvoy main x.cc:1\tlow on memory\tthread=7");
    assert_eq!(refused(&options), cut, "the warning was cut too");
    tokio::time::advance(std::time::Duration::from_secs(1)).await;
    output.access_line("GET / 200");
    assert_eq!(refused(&options), cut, "a second later it is still cut");
}

proptest! {
    #[test]
    fn lines_are_the_same_wherever_reads_end(text in "[a-c\n]{0,80}", cuts in prop::collection::vec(0..80_usize, 0..5)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]);
        prop_assert_eq!(lines_of(pieces), lines_of([text.as_bytes()]));
    }

    #[test]
    fn entries_never_make_the_parser_panic(line in "[\\[\\]\ta-e ]*(error|warning)?[\\[\\]\t ]*.*") {
        let _ = Entry::parse(&line);
    }
}
