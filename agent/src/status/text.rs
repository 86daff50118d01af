//! The document for people: one line a part, problems first.

use std::fmt::Write;
use std::time::SystemTime;

use super::{Agent, Status};
use crate::part::{Section, ago};
use crate::terminal::one_line;

/// Renders at `now`, with which ages and remaining times are told.
pub(super) fn render(status: &Status, sections: &[Box<dyn Section>], now: SystemTime) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<14}{}", one_line(value));
    };
    line(
        "Health",
        match status.health.ready {
            true => "ready",
            false => "NOT READY",
        },
    );
    for problem in &status.health.problems {
        line("", &format!("- {problem}"));
    }
    line("Agent", &agent(&status.agent, now));
    for section in sections {
        let Some(state) = status.sections.get(section.key()) else {
            continue;
        };
        let lines = section.lines(state, now).unwrap_or_else(|| {
            vec!["not understood: the agent that answers is of another version than this command".to_owned()]
        });
        for (number, told) in lines.iter().enumerate() {
            line(if number == 0 { section.title() } else { "" }, told);
        }
    }
    text
}

fn agent(agent: &Agent, now: SystemTime) -> String {
    match agent {
        Agent::NotAnswering { reason } => format!("{reason}; the rest is what this host shows"),
        Agent::Joining {
            version,
            pid,
            since,
            source,
        } => format!("{version}, pid {pid}, started {}, waits for {source}", ago(*since, now)),
        Agent::Running {
            version,
            pid,
            since,
            node,
            control_plane,
        } => format!(
            "{version}, pid {pid}, started {}, {node} of {control_plane}",
            ago(*since, now)
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::facts::{EnvoyState, Health, InterceptState, ProbeState};
    use crate::part::State;

    fn sections() -> Vec<Box<dyn Section>> {
        let words: State<Vec<String>> = State {
            key: "words",
            title: "Words",
            live: |_| Vec::new(),
            offline: |_| Vec::new(),
            lines: |words, _| words.clone(),
        };
        vec![Box::new(words)]
    }

    fn says(words: serde_json::Value) -> Status {
        Status {
            sections: [("words".to_owned(), words)].into(),
            ..Status::default()
        }
    }

    #[test]
    fn problems_and_the_agent_come_first() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let mut status = says(json!(["one", "two"]));
        status.health = Health {
            ready: false,
            problems: vec!["Envoy is dead".to_owned()],
        };
        let text = "Health        NOT READY\n              - Envoy is dead\n\
                    Agent         not running; the rest is what this host shows\n\
                    Words         one\n              two\n";
        assert_eq!(render(&status, &sections(), now), text);
        status.agent = Agent::Joining {
            version: "1.0".to_owned(),
            pid: 7,
            since: now - Duration::from_secs(90),
            source: "the bundle".to_owned(),
        };
        let text = render(&status, &sections(), now);
        assert!(
            text.contains("Agent         1.0, pid 7, started 1m 30s ago, waits for the bundle\n"),
            "{text}"
        );
    }

    #[test]
    fn a_section_without_lines_is_left_out_and_one_of_another_version_is_told() {
        let heads = "Health        NOT READY\nAgent         not running; the rest is what this host shows\n";
        let at = SystemTime::UNIX_EPOCH;
        assert_eq!(render(&Status::default(), &sections(), at), heads);
        assert_eq!(render(&says(json!([])), &sections(), at), heads);
        let text = render(&says(json!(7)), &sections(), at);
        assert!(text.contains("Words         not understood"), "{text}");
    }

    #[test]
    fn words_of_others_stay_on_their_line_and_command_no_terminal() {
        let text = render(
            &says(json!(["\u{1b}[2J\u{7}\r\nHealth        ready\u{202e}"])),
            &sections(),
            SystemTime::UNIX_EPOCH,
        );
        let told = "Words         \\u001b[2J\\u0007\\u000d\\nHealth        ready\\u202e\n";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn the_document_keeps_the_keys_that_scripts_read() {
        let mut status = says(json!([]));
        for (key, state) in [
            ("envoy", json!(EnvoyState::Waiting)),
            ("interception", json!(InterceptState::Absent)),
            ("probe", json!(ProbeState::Healthy)),
        ] {
            status.sections.insert(key.to_owned(), state);
        }
        let document = json!({
            "agent": {"state": "not_answering", "reason": "not running"},
            "health": {"ready": false, "problems": []},
            "envoy": {"state": "waiting"},
            "interception": {"state": "absent"},
            "probe": {"state": "healthy"},
            "words": [],
        });
        assert_eq!(json!(status), document);
        assert_eq!(serde_json::from_value::<Status>(document).unwrap(), status);
    }
}
