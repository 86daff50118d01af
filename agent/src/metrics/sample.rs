//! One line with a value, taken apart: no source's line gets onto the page unread.

/// A line `name{label="value",…} value timestamp # {…} exemplar`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SampleLine<'a> {
    /// Name and labels, as they are written on the page.
    pub(super) series: String,
    /// The value's text.
    pub(super) value: &'a str,
    /// The timestamp's text, in the unit of the source's format.
    pub(super) timestamp: Option<&'a str>,
    /// `# {…} value`, of OpenMetrics.
    pub(super) exemplar: Option<&'a str>,
}

impl<'a> SampleLine<'a> {
    /// Takes a line apart; `None` when it is no sample.
    pub(super) fn parse(line: &'a str) -> Option<Self> {
        let name = name(line)?;
        let rest = line.get(name.len()..)?;
        let (labels, rest) = match rest.trim_start().strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (String::new(), rest.strip_prefix([' ', '\t'])?),
        };
        let (value, exemplar) = match rest.find(" # {") {
            Some(at) => (rest.get(..at)?, rest.get(at..)),
            None => (rest, None),
        };
        let mut words = value.split_ascii_whitespace();
        let (value, timestamp) = (words.next()?, words.next());
        let is_number = |text: &str| text.parse::<f64>().is_ok();
        let is_sound = is_number(value) && timestamp.is_none_or(is_number) && words.next().is_none();
        let exemplar = exemplar.map(str::trim);
        (is_sound && exemplar.is_none_or(is_exemplar)).then(|| Self {
            series: format!("{name}{labels}"),
            value,
            timestamp,
            exemplar,
        })
    }
}

fn is_exemplar(text: &str) -> bool {
    let labels = text.strip_prefix("# {").and_then(labels);
    labels.is_some_and(|(_, rest)| {
        let mut words = rest.split_ascii_whitespace();
        let is_number = |word: &str| word.parse::<f64>().is_ok();
        words.next().is_some_and(is_number) && words.next().is_none_or(is_number) && words.next().is_none()
    })
}

/// The name of a metric at the start of `text`.
pub(super) fn name(text: &str) -> Option<&str> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len());
    let name = text.get(..end)?;
    name.starts_with(|c: char| !c.is_ascii_digit()).then_some(name)
}

/// The labels after the brace that opens them, as they are written on the page, and what comes after the other one.
fn labels(mut rest: &str) -> Option<(String, &str)> {
    let mut written = String::from("{");
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            written.push('}');
            return Some((if written == "{}" { String::new() } else { written }, rest));
        }
        let label = name(rest)?;
        rest = rest.get(label.len()..)?.trim_start().strip_prefix('=')?.trim_start();
        let value = quoted(rest)?;
        rest = rest.get(value.len()..)?;
        let comma = if written.len() > 1 { "," } else { "" };
        written.push_str(&format!("{comma}{label}={value}"));
    }
}

/// The string in quotes at the start of `text`, with its quotes.
fn quoted(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = inside.find(|c: char| {
        let ends = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        ends
    })?;
    text.get(..end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_is_taken_apart_whatever_is_in_its_labels() {
        let line = r#"a_bucket{le="+Inf", path="/a b} 1 # {\"\\"} 17 1795231431.5 # {trace="x"} 0.5 1"#;
        let sample = SampleLine::parse(line).unwrap();
        assert_eq!(sample.series, r#"a_bucket{le="+Inf",path="/a b} 1 # {\"\\"}"#);
        assert_eq!((sample.value, sample.timestamp), ("17", Some("1795231431.5")));
        assert_eq!(sample.exemplar, Some(r#"# {trace="x"} 0.5 1"#));
        assert_eq!(SampleLine::parse("up{} NaN").unwrap().series, "up");
        assert_eq!(SampleLine::parse("a\t-Inf").unwrap().value, "-Inf");
    }

    #[test]
    fn whatever_is_no_sample_is_refused() {
        for line in [
            "",
            "a",
            "a b",
            "1a 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\" 1",
            "a 1 2 3",
            "a 1 x",
            "<html> 1",
            "a 1 # {b} 1",
            "a 1 # {b=\"c\"}",
            "é 1",
        ] {
            assert_eq!(SampleLine::parse(line), None, "{line}");
        }
    }
}
