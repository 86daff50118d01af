//! Output of the program: sentences for people, or one JSON object a line for programs.

use std::io::{self, Write};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::gate::Figures;
use crate::migration::Share;
use crate::objects::Position;

/// One piece of news.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event<'a> {
    /// A fact that speaks against the migration, or is to be known before it.
    Finding {
        cluster: &'a str,
        forbids: &'a str,
        problem: &'a str,
    },
    /// An object as it will be, as a diff of what is there.
    Planned { cluster: &'a str, diff: &'a str },
    /// A cluster's state.
    Standing {
        cluster: &'a str,
        position: Option<&'a Position>,
        problem: Option<&'a str>,
        /// False where it couldn't be asked: then there is no position, and that says nothing.
        is_known: bool,
    },
    /// A cluster has taken a change; so far its API server knows.
    Written { cluster: &'a str, what: &'a str },
    /// A cluster is as before, because another one didn't take the change.
    PutBack { cluster: &'a str },
    /// All proxies that are known to call the service have a change.
    Arrived {
        cluster: &'a str,
        proxies: usize,
        milliseconds: u128,
    },
    /// Nobody could be asked whether a change has arrived; it was given time.
    Settled {
        cluster: &'a str,
        milliseconds: u128,
        because: &'a str,
    },
    /// The proxies of a cluster that have a side, and its endpoints there.
    Reached {
        cluster: &'a str,
        side: &'a str,
        proxies: usize,
        endpoints: &'a [String],
    },
    /// A call that was made on both sides, and what differs in the answers.
    Compared { call: &'a str, differences: &'a [String] },
    /// A thing that nobody has looked at.
    Unseen { what: &'a str, because: &'a str },
    /// A run begins, or goes on.
    Running { service: &'a str },
    /// The gate's verdict, and the figures that it is of; those are absent where Prometheus gave none.
    Judged {
        share: Share,
        cluster: &'a str,
        verdict: &'a str,
        because: &'a str,
        /// Seconds in which the figures were counted.
        window: f64,
        vm: Option<Figures>,
        pods: Option<Figures>,
    },
    /// A thing that failed and is tried again.
    TriedAgain { what: &'a str, because: &'a str },
    /// A run has sent all calls to the VM again.
    TakenBack { because: &'a str },
    /// A run came to no good end.
    Failed { because: &'a str },
    /// The end of a verb.
    Done { what: &'a str },
}

/// The way in which events are told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    Text,
    Json,
}

/// The lines of all that was told, as JSON, whatever is printed.
pub(crate) type Record = Mutex<Vec<String>>;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    /// Kept for as long as the program runs, where a report is to be made.
    pub(crate) record: Option<&'static Record>,
}

/// An event and its moment.
#[derive(Serialize)]
struct Line<'a> {
    at: String,
    #[serde(flatten)]
    event: &'a Event<'a>,
}

impl Output {
    /// Tells one event.
    pub(crate) fn tell(self, event: &Event<'_>) {
        let line = line(event);
        match self.format {
            Format::Json => print(&line),
            Format::Text => print(&sentence(event)),
        }
        self.keep(line);
    }

    /// Tells programs alone, where people are told otherwise.
    pub(crate) fn note(self, event: &Event<'_>) {
        let line = line(event);
        if self.format == Format::Json {
            print(&line);
        }
        self.keep(line);
    }

    fn keep(self, line: String) {
        if let Some(record) = self.record {
            record.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the present is before the year 9999")]
fn line(event: &Event<'_>) -> String {
    let at = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    serde_json::to_string(&Line { at, event }).unwrap_or_default()
}

/// Why stdout has not all that was printed.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints a text for people.
pub(crate) fn print(text: &str) {
    document(&printable(text));
}

/// Prints a document byte by byte: YAML has escaped what is not to be printed.
pub(crate) fn document(text: &str) {
    match writeln!(io::stdout().lock(), "{text}") {
        // Whoever reads no more needs no more.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => drop(FAILURE.set(error)),
        Ok(()) | Err(_) => {}
    }
}

/// Why not all was printed, if it wasn't.
pub(crate) fn failure() -> Option<&'static io::Error> {
    FAILURE.get()
}

fn sentence(event: &Event<'_>) -> String {
    match event {
        Event::Finding {
            cluster,
            forbids,
            problem,
        } => format!("{cluster}: {forbids}: {problem}"),
        Event::Planned { cluster, diff } => format!("{cluster}:\n{diff}"),
        Event::Standing {
            cluster,
            position,
            problem,
            is_known: true,
        } => standing(cluster, *position, *problem),
        Event::Standing { cluster, problem, .. } => {
            format!("{cluster}: not known: {}", problem.unwrap_or("it gave no answer"))
        }
        Event::Written { cluster, what } => format!("{cluster}: {what}"),
        Event::PutBack { cluster } => format!("{cluster}: put back as it was"),
        Event::Arrived {
            cluster,
            proxies,
            milliseconds,
        } => format!("{cluster}: all {proxies} proxies that call have it, after {milliseconds} ms"),
        Event::Settled {
            cluster,
            milliseconds,
            because,
        } => format!("{cluster}: given {milliseconds} ms, because {because}"),
        Event::Reached {
            cluster,
            side,
            proxies,
            endpoints,
        } => format!(
            "{cluster}: {proxies} proxies that call have {side} by mutual TLS: {}",
            endpoints.join(", ")
        ),
        Event::Compared { call, differences: [] } => format!("{call}: both sides answer alike"),
        Event::Compared { call, differences } => format!("{call}: {}", differences.join("; ")),
        Event::Unseen { what, because } => format!("{what} is not known, because {because}"),
        Event::Judged {
            share,
            cluster,
            verdict,
            because,
            ..
        } => format!("{cluster}: at {share}: {verdict}: {because}"),
        Event::TriedAgain { what, because } => format!("{what} is tried again: {because}"),
        Event::Running { service } => format!("{service} is moved"),
        Event::TakenBack { because } | Event::Failed { because } => (*because).to_owned(),
        Event::Done { what } => (*what).to_owned(),
    }
}

fn standing(cluster: &str, position: Option<&Position>, problem: Option<&str>) -> String {
    let at = position.map_or_else(
        || "no migration".to_owned(),
        |at| {
            let Position {
                share,
                epoch,
                since,
                by,
            } = at;
            format!("pods get {share}, change {epoch}, since {since} by {by}")
        },
    );
    match problem {
        Some(problem) => format!("{cluster}: {at}; {problem}"),
        None => format!("{cluster}: {at}"),
    }
}

/// `text` with what a terminal would obey escaped; much of it was said by API servers.
pub(crate) fn printable(text: &str) -> String {
    let is_plain = |c: char| !c.is_control() || c == '\n';
    let escaped = |c: char| match is_plain(c) {
        true => c.to_string(),
        false => c.escape_unicode().to_string(),
    };
    text.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::{Event, sentence};

    #[test]
    fn cluster_that_could_not_be_asked_is_not_without_a_migration() {
        let of = |is_known, problem| {
            sentence(&Event::Standing {
                cluster: "one",
                position: None,
                problem,
                is_known,
            })
        };
        assert_eq!(of(false, Some("no answer")), "one: not known: no answer");
        assert_eq!(of(true, None), "one: no migration");
    }

    #[test]
    fn yaml_has_escaped_what_a_terminal_would_obey() {
        let value = serde_json::json!({ "a": "\u{1b}[2J", "b": "x\ty", "c": "\u{9b}2J" });
        let yaml = serde_saphyr::to_string(&value).unwrap();
        assert!(!yaml.contains(['\u{1b}', '\u{9b}']), "{yaml:?}");
        let read: serde_json::Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(read, value);
    }
}
