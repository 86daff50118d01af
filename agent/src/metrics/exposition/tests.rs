use proptest::prelude::*;

use super::*;

fn finished(page: Merged) -> String {
    let rest = Merged::new(page.format);
    page.finish(rest)
}

fn merged(format: Format, sources: &[(&str, Format)]) -> String {
    let mut page = Merged::new(format);
    for (source, from) in sources {
        assert_eq!(page.add(source, *from, &[]), Dropped::default(), "{source}");
    }
    finished(page)
}

const TEXT: &str = r#"# words for people
# HELP requests_total Requests, "all".
# TYPE requests_total counter
requests_total{code="200"} 3 1795231431500

# TYPE old counter
old 1
# TYPE odd untyped
odd 2
"#;
const OPEN: &str = r#"# HELP requests Requests, \"all\".
# TYPE requests counter
requests_total{code="200"} 3 1795231431.5
# TYPE old unknown
old 1
# TYPE odd unknown
odd 2
# EOF
"#;

#[test]
fn text_becomes_openmetrics() {
    assert_eq!(merged(Format::OpenMetrics, &[(TEXT, Format::Text)]), OPEN);
    assert_eq!(merged(Format::OpenMetrics, &[(OPEN, Format::OpenMetrics)]), OPEN);
}

#[test]
fn openmetrics_becomes_text() {
    let source = "# TYPE build info\n# HELP build Build.\nbuild_info{v=\"1\"} 1\n# TYPE a_seconds gauge\n\
                  # UNIT a_seconds minutes\na_seconds 1\n# TYPE n counter\nn_total 7 # {t=\"x\"} 1\n# EOF\n";
    let wanted = "# HELP build_info Build.\n# TYPE build_info gauge\nbuild_info{v=\"1\"} 1\n# TYPE a_seconds gauge\n\
                  a_seconds 1\n# TYPE n_total counter\nn_total 7\n";
    assert_eq!(merged(Format::Text, &[(source, Format::OpenMetrics)]), wanted);
    let kept = TEXT.replace("# words for people\n", "").replace("\n\n", "\n");
    assert_eq!(merged(Format::Text, &[(TEXT, Format::Text)]), kept);
}

#[test]
fn sources_of_both_formats_are_one_page_with_one_end_and_one_description_each() {
    let page = merged(
        Format::OpenMetrics,
        &[
            ("# TYPE a counter\na_total 1\n# EOF\n", Format::OpenMetrics),
            ("# TYPE a_total counter\na_total{x=\"1\"} 2\n", Format::Text),
        ],
    );
    assert_eq!(page, "# TYPE a counter\na_total 1\na_total{x=\"1\"} 2\n# EOF\n");
}

#[test]
fn unsound_lines_are_left_out_and_the_first_is_told() {
    let mut page = Merged::new(Format::Text);
    let dropped = page.add("# TYPE b gauge\nb 1\n<html>\nb{b:c=\"1\"} 2\nb 3\n", Format::Text, &[]);
    assert_eq!(dropped.count, 2);
    assert_eq!(dropped.first, Some((3, "it begins with no metric's name")));
    assert_eq!(finished(page), "# TYPE b gauge\nb 1\nb 3\n");
}

#[test]
fn names_of_others_are_neither_told_of_nor_described() {
    let mut page = Merged::new(Format::OpenMetrics);
    let source = "# TYPE istio_vm_agent_ready gauge\nistio_vm_agent_ready 0\n# TYPE istio_x counter\nistio_x_total 1\n\
                  # TYPE mine gauge\nmine 1\n";
    let dropped = page.add(source, Format::OpenMetrics, &["istio_"]);
    assert_eq!(dropped.count, 2);
    assert_eq!(finished(page), "# TYPE mine gauge\nmine 1\n# EOF\n");
}

#[test]
fn description_after_a_sample_is_left_out_as_a_second_one_is() {
    let source = "a 1\n# TYPE a gauge\na 2\n# TYPE b gauge\n# TYPE b counter\nb 1\n# TYPE b counter\nb 2\n";
    let page = merged(Format::Text, &[(source, Format::Text)]);
    assert_eq!(page, "a 1\na 2\n# TYPE b counter\nb 1\nb 2\n");
}

#[test]
fn family_without_a_name_is_not_described() {
    let page = merged(
        Format::OpenMetrics,
        &[("# TYPE _total counter\n_total 1\n", Format::Text)],
    );
    assert_eq!(page, "_total 1\n# EOF\n");
}

#[test]
fn words_of_help_have_no_escapes_that_a_reader_does_not_know() {
    for (help, text, open) in [
        (r#"a "b" \"c\""#, r#"a "b" "c""#, r#"a \"b\" \"c\""#),
        (r"a\nb \\ \x \", r"a\nb \\ \\x \\", r"a\nb \\ \\x \\"),
        ("a\u{0}b\tc", "a\u{fffd}b\tc", "a\u{fffd}b\tc"),
    ] {
        assert_eq!(help_text(help, Format::Text), text);
        assert_eq!(help_text(help, Format::OpenMetrics), open);
    }
}

#[test]
fn format_is_the_one_that_the_scraper_prefers() {
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                      text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, format) in [
        (prometheus, Format::OpenMetrics),
        (
            "text/plain;version=0.0.4;q=0.9,application/openmetrics-text;q=0.1",
            Format::Text,
        ),
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::OpenMetrics,
        ),
        ("application/openmetrics-text;version=0.0.1", Format::Text),
        ("application/openmetrics-text;q=0", Format::Text),
        ("application/vnd.google.protobuf", Format::Text),
        ("*/*", Format::Text),
        ("", Format::Text),
    ] {
        assert_eq!(Format::accepted(accept), format, "{accept}");
    }
    let of = Format::of_content_type;
    assert_eq!(
        of(Some("application/openmetrics-text; version=1.0.0")),
        Some(Format::OpenMetrics)
    );
    assert_eq!(
        (of(None), of(Some("text/plain"))),
        (Some(Format::Text), Some(Format::Text))
    );
    assert_eq!(of(Some("application/vnd.google.protobuf")), None);
}

proptest! {
    /// A page that is read and written again is the same.
    #[test]
    fn page_is_a_fixed_point(source in "((# (HELP|TYPE|UNIT) )?[a-c]{1,2}(_total)?( counter| gauge)?(\\{a=\"[^\n]{0,3}\"\\})? [0-9]{0,3}( [0-9]{1,3})?\n?){0,6}") {
        for from in [Format::Text, Format::OpenMetrics] {
            for to in [Format::Text, Format::OpenMetrics] {
                let mut page = Merged::new(to);
                page.add(&source, from, &[]);
                let page = finished(page);
                prop_assert_eq!(merged(to, &[(&page, to)]), page);
            }
        }
    }
}
