//! What is printed: sentences for people, or one JSON object a line for programs.

use std::io::Write;

use serde::Serialize;

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
    /// What the gate says.
    Judged {
        share: Share,
        cluster: &'a str,
        verdict: &'a str,
        because: &'a str,
    },
    /// The end of a verb.
    Done { what: &'a str },
}

/// The way in which events are told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
}

impl Output {
    /// Tells one event.
    pub(crate) fn tell(self, event: &Event<'_>) {
        match self.format {
            Format::Json => print(&serde_json::to_string(event).unwrap_or_default()),
            Format::Text => print(&sentence(event)),
        }
    }
}

/// Prints a text that is a document of its own.
pub(crate) fn print(text: &str) {
    // Whoever reads no more needs no more.
    let _ = writeln!(std::io::stdout().lock(), "{}", printable(text));
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
        } => {
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
        } => format!("{cluster}: at {share}: {verdict}: {because}"),
        Event::Done { what } => (*what).to_owned(),
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
