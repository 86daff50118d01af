//! One line with a value, taken apart as strictly as the strictest reader does: Prometheus refuses a whole page for one
//! line that it doesn't understand, so no source's line gets onto the page as it is written.

use super::format::Format;

/// Most labels of a line. Prometheus has none of its own; an application's line has ten.
const MOST_LABELS: usize = 64;
/// Longest labels of an exemplar in all, in characters (OpenMetrics 1.0.0, "Exemplars").
const MAX_EXEMPLAR: usize = 128;
/// Longest way of a timestamp from 1970, in seconds: some 30,000 years, of which doubles still know milliseconds.
const MAX_TIME: f64 = 1e12;

/// Reason why a line is left out.
pub(super) type Reason = &'static str;

/// A line `name{label="value",…} value timestamp # {…} exemplar`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SampleLine<'a> {
    pub(super) name: &'a str,
    /// The labels in braces, as they are written on a page; empty where there are none.
    labels: String,
    value: &'a str,
    /// Milliseconds since 1970.
    timestamp: Option<f64>,
    /// Text after the `#`, of OpenMetrics.
    exemplar: Option<String>,
}

impl<'a> SampleLine<'a> {
    /// Takes a line of a source in `format` apart.
    pub(super) fn parse(line: &'a str, format: Format) -> Result<Self, Reason> {
        if line.contains(|c: char| c.is_control() && c != '\t') {
            return Err("it has a control character");
        }
        let name = name(line).ok_or("it begins with no metric's name")?;
        let rest = &line[name.len()..];
        let (labels, rest) = match rest.trim_start_matches(BLANKS).strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None if rest.starts_with(BLANKS) => (String::new(), rest),
            None => return Err("no value follows the name"),
        };
        let (numbers, exemplar) = match (format, rest.split_once('#')) {
            (Format::OpenMetrics, Some((numbers, after))) => (numbers, Some(exemplar(after)?)),
            _ => (rest, None),
        };
        let mut words = numbers.split(BLANKS).filter(|word| !word.is_empty());
        let value = words.next().and_then(number).ok_or("its value is no number")?;
        let timestamp = words.next().map(|word| milliseconds(word, format)).transpose()?;
        match words.next() {
            Some(_) => Err("something follows its timestamp"),
            None => Ok(Self {
                name,
                labels,
                value,
                timestamp,
                exemplar,
            }),
        }
    }

    /// The line as a page of that format has it, without its end.
    pub(super) fn written(&self, format: Format) -> String {
        let Self {
            name, labels, value, ..
        } = self;
        let timestamp = self.timestamp.map(|timestamp| match format {
            Format::Text => format!(" {timestamp:.0}"),
            Format::OpenMetrics => format!(" {}", timestamp / 1e3),
        });
        let exemplar = self.exemplar.as_ref().filter(|_| format == Format::OpenMetrics);
        let exemplar = exemplar.map(|exemplar| format!(" # {exemplar}"));
        let (timestamp, exemplar) = (timestamp.unwrap_or_default(), exemplar.unwrap_or_default());
        format!("{name}{labels} {value}{timestamp}{exemplar}")
    }
}

const BLANKS: [char; 2] = [' ', '\t'];

/// A number in words that Go's parser takes, too: it knows neither `-nan` nor what is beyond a double.
fn number(word: &str) -> Option<&str> {
    let number: f64 = word.parse().ok()?;
    Some(match number {
        _ if number.is_nan() => "NaN",
        f64::INFINITY => "+Inf",
        f64::NEG_INFINITY => "-Inf",
        _ => word,
    })
}

/// Milliseconds of text, which are whole ones, or seconds of OpenMetrics.
fn milliseconds(word: &str, format: Format) -> Result<f64, Reason> {
    let moment = match format {
        Format::Text => word.parse::<i64>().ok().map(|moment| moment as f64),
        Format::OpenMetrics => word.parse::<f64>().ok().map(|moment| moment * 1e3),
    };
    let moment = moment.filter(|moment| moment.abs() <= MAX_TIME * 1e3);
    // Without the zero that is below zero.
    let whole = moment.map(|moment| moment.round() + 0.0);
    whole.ok_or("its timestamp is no moment")
}

/// An exemplar after its `#`, as it is written.
fn exemplar(text: &str) -> Result<String, Reason> {
    const WRONG: Reason = "its exemplar is not understood";
    let inside = text.trim_start_matches(BLANKS).strip_prefix('{').ok_or(WRONG)?;
    let (labels, rest) = labels(inside)?;
    let mut words = rest.split(BLANKS).filter(|word| !word.is_empty());
    let value = words.next().and_then(number).ok_or(WRONG)?;
    let timestamp = words
        .next()
        .map(|word| milliseconds(word, Format::OpenMetrics))
        .transpose()?;
    if words.next().is_some() || labels.chars().count() > MAX_EXEMPLAR {
        return Err(WRONG);
    }
    let labels = if labels.is_empty() { "{}" } else { &labels };
    let timestamp = timestamp.map(|moment| format!(" {}", moment / 1e3));
    Ok(format!("{labels} {value}{}", timestamp.unwrap_or_default()))
}

/// The name of a metric at the start of `text`.
pub(super) fn name(text: &str) -> Option<&str> {
    word(text, |c| c == ':')
}

/// Letters, digits, underscores and `more`, of which the first is no digit.
fn word(text: &str, more: impl Fn(char) -> bool) -> Option<&str> {
    let end = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || more(c)))
        .unwrap_or(text.len());
    let word = text.get(..end)?;
    word.starts_with(|c: char| !c.is_ascii_digit()).then_some(word)
}

/// The labels after the brace that opens them, as they are written on a page, and what comes after the other one.
fn labels(mut rest: &str) -> Result<(String, &str), Reason> {
    const WRONG: Reason = "its labels are not understood";
    let mut seen: Vec<&str> = Vec::new();
    let mut written = String::new();
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if let Some(rest) = rest.strip_prefix('}') {
            let braces = if written.is_empty() { "" } else { "}" };
            return Ok((written + braces, rest));
        }
        let label = word(rest, |_| false).ok_or(WRONG)?;
        let value = rest[label.len()..].trim_start_matches(BLANKS).strip_prefix('=');
        let value = value.ok_or(WRONG)?.trim_start_matches(BLANKS);
        let quoted = quoted(value).ok_or("a label's value is not quoted as it has to be")?;
        if seen.contains(&label) {
            return Err("a label is there twice");
        }
        if label.starts_with("__") {
            return Err("labels that begin with __ are Prometheus' own");
        }
        if seen.len() == MOST_LABELS {
            return Err("it has more than 64 labels");
        }
        seen.push(label);
        written.push(if written.is_empty() { '{' } else { ',' });
        written.push_str(&format!("{label}={quoted}"));
        rest = value[quoted.len()..].trim_start_matches(BLANKS);
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.starts_with('}') => rest,
            None => return Err(WRONG),
        };
    }
}

/// The string in quotes at the start of `text`, with its quotes; `\\`, `\"` and `\n` are what may be escaped.
fn quoted(text: &str) -> Option<&str> {
    let mut characters = text.char_indices().skip(1);
    text.starts_with('"').then_some(())?;
    loop {
        match characters.next()? {
            (end, '"') => return text.get(..=end),
            (_, '\\') => {
                characters.next().filter(|(_, c)| matches!(c, '\\' | '"' | 'n'))?;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(line: &str, format: Format) -> Reason {
        SampleLine::parse(line, format).expect_err(line)
    }

    #[test]
    fn sample_is_taken_apart_whatever_is_in_its_labels() {
        let line = r#"a_bucket{le="+Inf", path="/a b} 1 # {\"\\",} 17 1795231431.5 # {trace="x"} 0.5 1"#;
        let sample = SampleLine::parse(line, Format::OpenMetrics).unwrap();
        assert_eq!(sample.name, "a_bucket");
        let labels = r#"{le="+Inf",path="/a b} 1 # {\"\\"}"#;
        let open = format!("a_bucket{labels} 17 1795231431.5 # {{trace=\"x\"}} 0.5 1");
        assert_eq!(sample.written(Format::OpenMetrics), open);
        assert_eq!(
            sample.written(Format::Text),
            format!("a_bucket{labels} 17 1795231431500")
        );
    }

    #[test]
    fn numbers_are_written_as_every_reader_takes_them() {
        for (line, written) in [
            ("up{} NaN", "up NaN"),
            ("a\t-Inf", "a -Inf"),
            ("a -nan", "a NaN"),
            ("a infinity", "a +Inf"),
            ("a 1e999", "a +Inf"),
            ("a 1.5e-3 -1", "a 1.5e-3 -1"),
        ] {
            let sample = SampleLine::parse(line, Format::Text).unwrap();
            assert_eq!(sample.written(Format::Text), written);
        }
    }

    #[test]
    fn sample_that_prometheus_would_refuse_the_page_for_is_left_out_with_its_reason() {
        let many: String = (0..=64).map(|number| format!("l{number}=\"\",")).collect();
        let many = format!("a{{{many}}} 1");
        for (line, wanted) in [
            ("", "no metric's name"),
            ("1a 1", "no metric's name"),
            ("é 1", "no metric's name"),
            ("<html> 1", "no metric's name"),
            ("a", "no value"),
            ("a-b 1", "no value"),
            ("a b", "its value is no number"),
            ("a 0x1p3", "its value is no number"),
            ("a 1_000", "its value is no number"),
            ("a 1 2 3", "follows its timestamp"),
            ("a 1 x", "its timestamp"),
            ("a 1 NaN", "its timestamp"),
            ("a 1 1.5", "its timestamp"),
            ("a 1 9223372036854775807", "its timestamp"),
            ("a{b=c} 1", "is not quoted"),
            ("a{b=\"c} 1", "is not quoted"),
            ("a{b=\"\\c\"} 1", "is not quoted"),
            ("a{b=\"c\" 1", "labels are not understood"),
            ("a{,b=\"c\"} 1", "labels are not understood"),
            ("a{b:c=\"1\"} 1", "labels are not understood"),
            ("a{\"b\"=\"1\"} 1", "labels are not understood"),
            ("a{b=\"1\",b=\"2\"} 1", "there twice"),
            ("a{__name__=\"istio_vm_agent_ready\"} 1", "Prometheus' own"),
            ("a{b=\"\0\"} 1", "control character"),
            (many.as_str(), "64 labels"),
        ] {
            let told = reason(line, Format::Text);
            assert!(told.contains(wanted), "{line}: {told}");
        }
        let long = format!("a 1 # {{b=\"{}\"}} 1", "c".repeat(128));
        for line in [
            "a 1 # {b} 1",
            "a 1 # {b=\"c\"}",
            "a 1 # {b=\"c\"} 1 NaN",
            "a 1 # {b=\"c\",b=\"d\"} 1",
            "a 1 # {b=\"c\"} 1 1 1",
            "a 1 # words",
            "a 1 inf",
            long.as_str(),
        ] {
            reason(line, Format::OpenMetrics);
        }
        // Text has no exemplars.
        reason("a 1 # {b=\"c\"} 1", Format::Text);
    }
}
