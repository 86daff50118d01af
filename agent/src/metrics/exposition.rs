//! The two texts that Prometheus reads, and one put into the other.
//!
//! Between them differ: a counter's family, which OpenMetrics names without `_total`; timestamps, in milliseconds or
//! seconds; words for types; exemplars, units and the end, which OpenMetrics alone has; comments and empty lines, which it
//! has not. (prometheus.io/docs/instrumenting/exposition_formats, OpenMetrics 1.0.0)

use std::collections::HashSet;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use super::sample::{SampleLine, name};

/// One of the texts.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Format {
    /// Prometheus' own, 0.0.4.
    Text,
    /// OpenMetrics, 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that `Accept` prefers; text where it names none of them.
    pub(super) fn accepted(accept: &str) -> Self {
        let (mut text, mut open) = (0.0_f64, 0.0_f64);
        for range in accept.split(',') {
            let mut words = range.split(';').map(str::trim);
            let kind = words.next().unwrap_or_default();
            let (mut quality, mut version) = (1.0_f64, "1.0.0");
            for parameter in words {
                match parameter.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = value,
                    _ => {}
                }
            }
            match kind {
                "application/openmetrics-text" if version == "1.0.0" => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => text = text.max(quality),
                _ => {}
            }
        }
        // Where both are liked the same, the one that says more.
        if open > 0.0 && open >= text {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The format that a source says it speaks; `None` for another. A source that says nothing speaks text.
    pub(super) fn of_content_type(kind: Option<&str>) -> Option<Self> {
        match kind.map(|kind| kind.split(';').next().unwrap_or_default().trim()) {
            None | Some("text/plain") => Some(Self::Text),
            Some("application/openmetrics-text") => Some(Self::OpenMetrics),
            Some(_) => None,
        }
    }

    /// The content type of a page.
    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// `Accept` of a request to a source, where the page is to be in this format.
    pub(super) const fn accept(self) -> &'static str {
        match self {
            Self::Text => "text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5",
            Self::OpenMetrics => "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5",
        }
    }
}

/// A page in the making.
#[derive(Debug)]
pub(super) struct Merged {
    format: Format,
    text: String,
    /// Families that are described: a second description is none.
    described: HashSet<String>,
}

/// The lines about a family before its first sample.
#[derive(Clone, Debug, Default)]
struct Description<'a> {
    name: &'a str,
    help: Option<&'a str>,
    kind: Option<&'a str>,
    unit: Option<&'a str>,
}

impl Merged {
    pub(super) fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
            described: HashSet::new(),
        }
    }

    /// What goes onto a page after the families `names`, as text names them: it may not describe them anew.
    pub(super) fn beside<'a>(names: impl Iterator<Item = &'a str>, format: Format) -> Self {
        let taken = names.map(|name| match format {
            Format::Text => name,
            Format::OpenMetrics => name.trim_end_matches("_total"),
        });
        Self {
            described: taken.map(str::to_owned).collect(),
            ..Self::new(format)
        }
    }

    /// Adds the text of a source.
    ///
    /// # Errors
    /// When a line is none of that format. Then nothing of the source is on the page.
    pub(super) fn add(&mut self, source: &str, format: Format) -> Result<()> {
        let (length, mut described) = (self.text.len(), Vec::new());
        let added = self.add_lines(source, format, &mut described);
        if added.is_err() {
            self.text.truncate(length);
            for family in described {
                self.described.remove(&family);
            }
        }
        added
    }

    /// The whole page, `rest` last.
    pub(super) fn finish(mut self, rest: Self) -> String {
        self.text.push_str(&rest.text);
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn add_lines(&mut self, source: &str, format: Format, described: &mut Vec<String>) -> Result<()> {
        let mut description = Description::default();
        for (number, line) in (1..).zip(source.lines()) {
            let line = line.trim_end();
            match line.strip_prefix('#') {
                _ if line.is_empty() => {}
                Some(" EOF") if format == Format::OpenMetrics => break,
                // What is no description is some words for people.
                Some(comment) => {
                    if let Some(comment) = Comment::parse(comment) {
                        if comment.name != description.name {
                            self.describe(&std::mem::take(&mut description), format, described);
                        }
                        description.take(&comment);
                    }
                }
                None => {
                    self.describe(&std::mem::take(&mut description), format, described);
                    self.add_sample(line, format)
                        .with_context(|| format!("line {number} is no sample of a metric"))?;
                }
            }
        }
        self.describe(&description, format, described);
        Ok(())
    }

    fn describe(&mut self, description: &Description<'_>, from: Format, described: &mut Vec<String>) {
        let Description { name, help, kind, unit } = *description;
        let (family, kind) = canonical(name, kind.unwrap_or("unknown"), from);
        let (family, kind) = rendered(family, kind, self.format);
        if name.is_empty() || !self.described.insert(family.clone()) {
            return;
        }
        described.push(family.clone());
        if let Some(help) = help {
            let help = match (from, self.format) {
                (Format::Text, Format::OpenMetrics) => quotes_escaped(help),
                (Format::OpenMetrics, Format::Text) => help.replace("\\\"", "\""),
                _ => help.to_owned(),
            };
            let _ = writeln!(self.text, "# HELP {family} {help}");
        }
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
        if let Some(unit) = unit.filter(|_| self.format == Format::OpenMetrics) {
            let _ = writeln!(self.text, "# UNIT {family} {unit}");
        }
    }

    fn add_sample(&mut self, line: &str, from: Format) -> Result<()> {
        let Some(sample) = SampleLine::parse(line) else {
            bail!("it is not understood");
        };
        let _ = write!(self.text, "{} {}", sample.series, sample.value);
        if let Some(timestamp) = sample.timestamp {
            let moment: f64 = timestamp.parse()?;
            let _ = match (from, self.format) {
                (Format::Text, Format::OpenMetrics) => write!(self.text, " {}", moment / 1e3),
                (Format::OpenMetrics, Format::Text) => write!(self.text, " {:.0}", moment * 1e3),
                _ => write!(self.text, " {timestamp}"),
            };
        }
        if let Some(exemplar) = sample.exemplar.filter(|_| self.format == Format::OpenMetrics) {
            let _ = write!(self.text, " {exemplar}");
        }
        self.text.push('\n');
        Ok(())
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
        let name = name(rest).filter(|_| matches!(kind, "HELP" | "TYPE" | "UNIT"))?;
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
            "TYPE" => self.kind = Some(comment.rest),
            _ => self.unit = Some(comment.rest),
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

fn quotes_escaped(help: &str) -> String {
    let mut escaped = String::with_capacity(help.len());
    let mut is_escaped = false;
    for c in help.chars() {
        if c == '"' && !is_escaped {
            escaped.push('\\');
        }
        is_escaped = c == '\\' && !is_escaped;
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests;
