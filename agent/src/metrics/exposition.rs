//! The two texts that Prometheus reads, and one put into the other.
//!
//! Between them differ: a counter's family, which OpenMetrics names without `_total`; timestamps, in milliseconds or
//! seconds; words for types; exemplars and the end, which OpenMetrics alone has; comments and empty lines, which it has
//! not. Units are left out: a wrong one costs the page, and Prometheus makes nothing of a right one.
//! (prometheus.io/docs/instrumenting/exposition_formats, OpenMetrics 1.0.0)

use std::collections::HashSet;
use std::fmt::Write as _;

use super::format::Format;
use super::sample::{Reason, SampleLine, name};

/// Most families that are told apart, whose names are in memory while a page is made: Envoy has some hundred.
const MOST_FAMILIES: usize = 20_000;

/// A page in the making.
#[derive(Debug)]
pub(super) struct Merged {
    format: Format,
    text: String,
    /// Families that are described or have samples: what describes them then is left out.
    known: HashSet<String>,
}

/// The samples of a source that are not on the page.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Dropped {
    pub(super) count: u64,
    /// Number of the first one's line, and why it is left out.
    pub(super) first: Option<(usize, Reason)>,
}

/// The lines about a family before its first sample.
#[derive(Clone, Debug, Default)]
struct Description<'a> {
    name: &'a str,
    help: Option<&'a str>,
    kind: Option<&'a str>,
}

impl Merged {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
            known: HashSet::new(),
        }
    }

    /// An exposition for a page that has the families `names`, as text names them, already: it may not describe them
    /// anew.
    pub(super) fn beside<'a>(names: impl Iterator<Item = &'a str>, format: Format) -> Self {
        let taken = names.map(|name| match format {
            Format::Text => name,
            Format::OpenMetrics => name.trim_end_matches("_total"),
        });
        Self {
            known: taken.map(str::to_owned).collect(),
            ..Self::new(format)
        }
    }

    /// Adds the text of a source, but for what is unsound and for names that begin with one of `reserved`.
    pub(super) fn add(&mut self, source: &str, format: Format, reserved: &[&str]) -> Dropped {
        let is_reserved = |name: &str| reserved.iter().any(|start| name.starts_with(start));
        let mut dropped = Dropped::default();
        let mut description = Description::default();
        for (number, line) in (1..).zip(source.lines()) {
            let line = line.trim_end();
            match line.strip_prefix('#') {
                _ if line.is_empty() => {}
                Some(" EOF") if format == Format::OpenMetrics => break,
                // What is no description is some words for people.
                Some(comment) => {
                    if let Some(comment) = Comment::parse(comment).filter(|comment| !is_reserved(comment.name)) {
                        if comment.name != description.name {
                            self.describe(&std::mem::take(&mut description), format);
                        }
                        description.take(&comment);
                    }
                }
                None => {
                    self.describe(&std::mem::take(&mut description), format);
                    let sample = SampleLine::parse(line, format).and_then(|sample| match is_reserved(sample.name) {
                        true => Err("its name is the mesh's own"),
                        false => Ok(sample),
                    });
                    match sample {
                        Ok(sample) => self.add_sample(&sample),
                        Err(reason) => {
                            dropped.count += 1;
                            dropped.first.get_or_insert((number, reason));
                        }
                    }
                }
            }
        }
        self.describe(&description, format);
        dropped
    }

    /// The whole page, `rest` last.
    pub(super) fn finish(mut self, rest: Self) -> String {
        self.text.push_str(&rest.text);
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn describe(&mut self, description: &Description<'_>, from: Format) {
        let Description { name, help, kind } = *description;
        let (family, kind) = canonical(name, kind.unwrap_or("unknown"), from);
        let (family, kind) = rendered(family, kind, self.format);
        // A counter of text may be called `_total`, which leaves OpenMetrics no name.
        if name.is_empty() || family.is_empty() || !self.is_new(&family) {
            return;
        }
        if let Some(help) = help {
            let _ = writeln!(self.text, "# HELP {family} {}", help_text(help, self.format));
        }
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
    }

    /// True the first time, and never beyond the bound.
    fn is_new(&mut self, family: &str) -> bool {
        let is_new = self.known.len() < MOST_FAMILIES && !self.known.contains(family);
        is_new && self.known.insert(family.to_owned())
    }

    fn add_sample(&mut self, sample: &SampleLine<'_>) {
        self.is_new(sample.name);
        self.text.push_str(&sample.written(self.format));
        self.text.push('\n');
    }
}

/// `# HELP name words`, and its like.
struct Comment<'a> {
    kind: &'a str,
    name: &'a str,
    rest: &'a str,
}

impl<'a> Comment<'a> {
    fn parse(after_hash: &'a str) -> Option<Self> {
        let (kind, rest) = after_hash.trim_start().split_once([' ', '\t'])?;
        let rest = rest.trim_start();
        let name = name(rest).filter(|_| matches!(kind, "HELP" | "TYPE"))?;
        let rest = rest.get(name.len()..)?;
        let is_over = rest.is_empty() || rest.starts_with([' ', '\t']);
        is_over.then(|| Self {
            kind,
            name,
            rest: rest.trim_start(),
        })
    }
}

impl<'a> Description<'a> {
    fn take(&mut self, comment: &Comment<'a>) {
        self.name = comment.name;
        match comment.kind {
            "HELP" => self.help = Some(comment.rest),
            _ => self.kind = Some(comment.rest),
        }
    }
}

/// The family by OpenMetrics' name, and its type by OpenMetrics' word. `plain` is a counter of text whose name OpenMetrics
/// doesn't allow.
fn canonical<'a>(name: &'a str, kind: &'a str, from: Format) -> (&'a str, &'a str) {
    match (from, kind, name.strip_suffix("_total")) {
        (Format::Text, "counter", Some(family)) => (family, "counter"),
        (Format::Text, "counter", None) => (name, "plain"),
        (Format::Text, "gauge" | "histogram" | "summary", _) => (name, kind),
        (Format::Text, ..) => (name, "unknown"),
        (Format::OpenMetrics, ..) => (name, kind),
    }
}

/// The family's name and type as the page has them.
fn rendered(family: &str, kind: &str, format: Format) -> (String, &'static str) {
    let plain = |kind| (family.to_owned(), kind);
    match (format, kind) {
        (_, "gauge") => plain("gauge"),
        (_, "histogram") => plain("histogram"),
        (_, "summary") => plain("summary"),
        (Format::OpenMetrics, "counter") => plain("counter"),
        (Format::OpenMetrics, "info") => plain("info"),
        (Format::OpenMetrics, "stateset") => plain("stateset"),
        (Format::OpenMetrics, "gaugehistogram") => plain("gaugehistogram"),
        (Format::OpenMetrics, _) => plain("unknown"),
        (Format::Text, "counter") => (format!("{family}_total"), "counter"),
        (Format::Text, "plain") => plain("counter"),
        (Format::Text, "info") => (format!("{family}_info"), "gauge"),
        (Format::Text, "stateset") => plain("gauge"),
        (Format::Text, _) => plain("untyped"),
    }
}

/// Words of help, escaped as `format` has it: quotes in OpenMetrics alone, and nothing but what both know.
fn help_text(help: &str, format: Format) -> String {
    let mut written = String::with_capacity(help.len());
    let mut characters = help.chars().peekable();
    while let Some(c) = characters.next() {
        let escaped = characters.next_if(|next| c == '\\' && matches!(next, '\\' | 'n' | '"'));
        match (c, escaped) {
            ('"', _) | (_, Some('"')) => written.push_str(match format {
                Format::Text => "\"",
                Format::OpenMetrics => "\\\"",
            }),
            (_, Some(escaped)) => written.extend(['\\', escaped]),
            ('\\', None) => written.push_str("\\\\"),
            (c, None) if c.is_control() && c != '\t' => written.push(char::REPLACEMENT_CHARACTER),
            (c, None) => written.push(c),
        }
    }
    written
}

#[cfg(test)]
mod tests;
