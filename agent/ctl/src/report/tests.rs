use super::*;

/// A run of two clusters whose pods fail at the last step, a verdict each five seconds.
fn run() -> String {
    let mut lines = vec![line(
        0,
        r#""event":"running","service":"catalog.boutique.svc.cluster.local""#,
    )];
    for (step, share) in [1, 5, 20, 50].into_iter().enumerate() {
        for tick in 0..12 {
            let at = step * 60 + tick * 5;
            let is_bad = share == 50 && tick > 8;
            for (cluster, rate) in [("one", 200), ("two<&>", 150)] {
                let total = rate * 60;
                let pods = total * (if tick < 2 { share * 2 / 3 } else { share }) / 100;
                let (success, p99) = if is_bad { (0.93, 240) } else { (0.9996, 31 + tick) };
                lines.push(line(at, &format!(
                    r#""event":"judged","share":{share},"cluster":"{cluster}","verdict":"{}","because":"{success} of | calls",
                    "window":60.0,"vm":{{"requests":{},"success":0.9999,"p99":22.0}},
                    "pods":{{"requests":{pods},"success":{success},"p99":{p99}}}"#,
                    if is_bad { "bad" } else { "good" },
                    total - pods,
                ).replace('\n', "")));
            }
        }
    }
    lines.push(line(238, r#""event":"written","cluster":"one","what":"pods get 0 %""#));
    lines.push(line(239, r#""event":"taken_back","because":"one: too few succeed""#));
    lines.push(line(239, r#""event":"failed","because":"at 50 % the gate said bad""#));
    lines.join("\n")
}

fn line(at: usize, rest: &str) -> String {
    format!(r#"{{"at":"2026-11-26T10:{:02}:{:02}.000Z",{rest}}}"#, at / 60, at % 60)
}

#[test]
fn page_says_how_it_ended_and_each_step() {
    let run = lines::parse(&run()).unwrap();
    let text = page::text(&run, "a run.svg").unwrap();
    for words in [
        "# From the VM to pods: catalog.boutique.svc.cluster.local",
        "From 2026-11-26T10:00:00Z to 2026-11-26T10:03:59Z. It ended before the last step: at 50 % the gate said bad.",
        "](a%20run.svg)",
        "| 20 % | one | 0:55 | 20.0 % | 2400 / 9600 | 99.96 % / 99.99 % | 42 ms / 22 ms | good: 0.9996 of \\| calls |",
        "| 50 % | two\\<&\\> |",
        "- 3:59: all calls are the VM's again: one: too few succeed",
    ] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    assert_eq!(text.lines().filter(|line| line.contains(" % | one | ")).count(), 4);
}

#[test]
fn picture_has_each_cluster_and_no_number_that_is_none() {
    let run = lines::parse(&run()).unwrap();
    let svg = picture::draw(&run).unwrap();
    // Four panels with two lines each, for two clusters.
    assert_eq!(svg.matches("<polyline").count(), 16, "{svg}");
    assert!(svg.contains(">two&lt;&amp;&gt;</text>"), "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(svg.ends_with("</svg>\n"));
}

#[test]
fn step_that_was_judged_by_nothing_is_a_gap() {
    let text = [
        line(
            0,
            r#""event":"judged","share":20,"cluster":"one","verdict":"no verdict","because":"no answer","window":0,"vm":null,"pods":null"#,
        ),
        line(
            0,
            r#""event":"judged","share":20,"cluster":"one","verdict":"no verdict","because":"none","window":1,"vm":{"requests":0,"success":null,"p99":null},"pods":{"requests":0,"success":null,"p99":null}"#,
        ),
    ];
    let run = lines::parse(&text.join("\n\n")).unwrap();
    let svg = picture::draw(&run).unwrap();
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert!(
        page::text(&run, "x.svg")
            .unwrap()
            .contains("| 20 % | one | 0:00 | – | 0 / 0 | – / – |")
    );
}

#[test]
fn lines_of_anything_else_are_refused_by_number() {
    let refused = |text: &str| format!("{:#}", lines::parse(text).unwrap_err());
    assert!(refused(&format!("{}\nnope", line(0, r#""event":"planned""#))).starts_with("line 2 is none of"));
    assert!(refused("").contains("nothing to report"));
    assert!(refused(&line(0, r#""event":"planned""#)).contains("nothing to report"));
    assert!(refused(r#"{"at":"today","event":"planned"}"#).starts_with("line 1 is none of"));
}

#[test]
fn last_line_that_is_cut_is_left_out() {
    let text = run();
    let whole = lines::parse(&text).unwrap().told.len();
    assert_eq!(lines::parse(&text[..text.len() - 5]).unwrap().told.len(), whole - 1);
}
