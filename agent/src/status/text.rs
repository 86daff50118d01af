//! The document for people: the cause of what is wrong first, then the rest, then one line a part.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use super::{Agent, Status};
use crate::facts::Health;
use crate::part::{Section, ago};
use crate::terminal::{Paint, Tone, one_line};

/// Words that a part's line begins with when it does not do its work.
const ALARMS: [&str; 6] = ["NOT ", "DOWN", "FAILED", "OPEN", "UNHEALTHY", "NONE"];

/// Longest time from the start of a process until it tells its state.
const START: Duration = Duration::from_secs(2);

/// Lines of a name and a value.
struct Lines {
    text: String,
    paint: Paint,
}

impl Lines {
    fn add(&mut self, name: &str, value: &str) {
        let value = one_line(value);
        let is_alarm = ALARMS.iter().any(|alarm| value.starts_with(alarm));
        self.write(name, is_alarm.then_some(Tone::Bad), &value);
    }

    fn add_toned(&mut self, name: &str, tone: Tone, value: &str) {
        self.write(name, Some(tone), &one_line(value));
    }

    fn write(&mut self, name: &str, tone: Option<Tone>, value: &str) {
        let value = match tone {
            Some(tone) => self.paint.paint(tone, value),
            None => value.into(),
        };
        // Writing to a String can't fail.
        let _ = writeln!(self.text, "{name:<14}{value}");
    }
}

/// Renders at `now`, with which ages and remaining times are told.
pub(super) fn render(status: &Status, sections: &[Box<dyn Section>], now: SystemTime, paint: Paint) -> String {
    let mut lines = Lines {
        text: String::new(),
        paint,
    };
    health(&mut lines, &status.health);
    lines.add("Agent", &agent(&status.agent, now));
    for section in sections {
        let Some(state) = status.sections.get(section.key()) else {
            continue;
        };
        let told = section.lines(state, now).unwrap_or_else(|| {
            vec!["not understood: the agent that answers is of another version than this command".to_owned()]
        });
        for (number, told) in told.iter().enumerate() {
            lines.add(if number == 0 { section.title() } else { "" }, told);
        }
    }
    lines.text
}

/// The verdict, the cause with its remedy, and what else is wrong.
fn health(lines: &mut Lines, health: &Health) {
    let (tone, verdict) = match (health.ready, health.problems.is_empty()) {
        (true, true) => (Tone::Good, "ready"),
        (true, false) => (Tone::Warning, "ready"),
        (false, _) => (Tone::Bad, "NOT READY"),
    };
    lines.add_toned("Health", tone, verdict);
    // An agent of before had no codes.
    let codes = health.codes.iter().map(String::as_str).chain(std::iter::repeat(""));
    let problems = health.problems.iter().zip(codes);
    for (number, (problem, code)) in problems.enumerate() {
        let coded = match code {
            "" => problem.clone(),
            code => format!("{problem} [{code}]"),
        };
        match number {
            0 => lines.add_toned("Cause", tone, &coded),
            1 => lines.add("Also", &format!("- {coded}")),
            _ => lines.add("", &format!("- {coded}")),
        }
        if let Some(remedy) = health.remedy.as_ref().filter(|_| number == 0) {
            lines.add("Do", remedy);
        }
    }
}

fn agent(agent: &Agent, now: SystemTime) -> String {
    match agent {
        Agent::NotAnswering { reason } => format!("{reason}; the rest is what this host shows"),
        Agent::Joining {
            version,
            pid,
            since,
            process_since,
            source,
        } => format!(
            "{version}, pid {pid}, {}, waits for {source}",
            begun(*since, *process_since, now)
        ),
        Agent::Running {
            version,
            pid,
            since,
            process_since,
            node,
            control_plane,
        } => format!(
            "{version}, pid {pid}, {}, {node} of {control_plane}",
            begun(*since, *process_since, now)
        ),
    }
}

/// The age of the process, and of its configuration where that came later.
fn begun(since: SystemTime, process_since: Option<SystemTime>, now: SystemTime) -> String {
    match process_since {
        Some(process) if since > process + START => {
            format!(
                "started {}, its configuration taken up {}",
                ago(process, now),
                ago(since, now)
            )
        }
        _ => format!("started {}", ago(since, now)),
    }
}

#[cfg(test)]
mod tests {
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
    fn cause_and_its_remedy_come_first() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let mut status = says(json!(["one", "two"]));
        status.health = Health {
            ready: false,
            problems: vec!["Envoy is dead".to_owned(), "so are the rules".to_owned()],
            codes: vec!["envoy-down".to_owned(), "rules-waiting".to_owned()],
            remedy: Some("look at its log".to_owned()),
        };
        let text = "Health        NOT READY\n\
                    Cause         Envoy is dead [envoy-down]\n\
                    Do            look at its log\n\
                    Also          - so are the rules [rules-waiting]\n\
                    Agent         not running; the rest is what this host shows\n\
                    Words         one\n              two\n";
        assert_eq!(render(&status, &sections(), now, Paint::PLAIN), text);
        status.agent = Agent::Joining {
            version: "1.0".to_owned(),
            pid: 7,
            since: now - Duration::from_secs(90),
            process_since: None,
            source: "the bundle".to_owned(),
        };
        let text = render(&status, &sections(), now, Paint::PLAIN);
        assert!(
            text.contains("Agent         1.0, pid 7, started 1m 30s ago, waits for the bundle\n"),
            "{text}"
        );
    }

    #[test]
    fn process_that_took_another_configuration_up_is_as_old_as_before() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let since = now - Duration::from_secs(5);
        let said = |older: u64| begun(since, Some(since - Duration::from_secs(older)), now);
        assert_eq!(said(0), "started 5s ago");
        assert_eq!(said(55), "started 1m ago, its configuration taken up 5s ago");
    }

    #[test]
    fn section_without_lines_is_left_out_and_one_of_another_version_is_told() {
        let heads = "Health        NOT READY\nAgent         not running; the rest is what this host shows\n";
        let at = SystemTime::UNIX_EPOCH;
        assert_eq!(render(&Status::default(), &sections(), at, Paint::PLAIN), heads);
        assert_eq!(render(&says(json!([])), &sections(), at, Paint::PLAIN), heads);
        let text = render(&says(json!(7)), &sections(), at, Paint::PLAIN);
        assert!(text.contains("Words         not understood"), "{text}");
    }

    #[test]
    fn words_of_others_stay_on_their_line_and_command_no_terminal() {
        let text = render(
            &says(json!(["\u{1b}[2J\u{7}\r\nHealth        ready\u{202e}"])),
            &sections(),
            SystemTime::UNIX_EPOCH,
            Paint::PLAIN,
        );
        let told = "Words         \\u001b[2J\\u0007\\u000d\\nHealth        ready\\u202e\n";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn document_keeps_the_keys_that_scripts_read() {
        let mut status = says(json!([]));
        for (key, state) in [
            ("envoy", json!(EnvoyState::Waiting)),
            ("interception", json!(InterceptState::Absent)),
            ("probe", json!(ProbeState::Healthy)),
        ] {
            status.sections.insert(key.to_owned(), state);
        }
        let document = json!({
            "version": 1,
            "agent": {"state": "not_answering", "reason": "not running"},
            "health": {"ready": false, "problems": [], "codes": [], "remedy": null},
            "envoy": {"state": "waiting"},
            "interception": {"state": "absent"},
            "probe": {"state": "healthy"},
            "words": [],
        });
        assert_eq!(json!(status), document);
        assert_eq!(serde_json::from_value::<Status>(document).unwrap(), status);
    }
}
