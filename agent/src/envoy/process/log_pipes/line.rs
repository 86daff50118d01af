//! Lines out of bytes, and levels out of Envoy's log lines. Pure.

/// The longest line, in bytes; the rest of a longer one is dropped.
const MAX_LINE_BYTES: usize = 16 << 10;

/// Makes whole lines of the bytes that come.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
    /// True while the rest of a line that was cut is still to come.
    skipping: bool,
}

impl Lines {
    /// Adds the bytes that were read and hands on each line that they complete, without its end; empty ones are
    /// dropped.
    pub(super) fn push(&mut self, bytes: &[u8], line: impl Fn(&str)) {
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.extend(&rest[..end], &line);
            self.finish(&line);
            self.skipping = false;
            rest = &rest[end + 1..];
        }
        self.extend(rest, &line);
    }

    fn extend(&mut self, bytes: &[u8], line: &impl Fn(&str)) {
        if self.skipping {
            return;
        }
        let room = MAX_LINE_BYTES - self.partial.len();
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if bytes.len() > room {
            self.partial.extend_from_slice("…".as_bytes());
            self.finish(line);
            self.skipping = true;
        }
    }

    fn finish(&mut self, line: &impl Fn(&str)) {
        let text = String::from_utf8_lossy(&self.partial);
        if !text.trim().is_empty() {
            line(text.trim_end());
        }
        self.partial.clear();
    }
}

/// Envoy's log levels.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Level {
    Trace,
    Debug,
    Info,
    Warning,
    Error,
    Critical,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warning" => Self::Warning,
            "error" => Self::Error,
            "critical" => Self::Critical,
            _ => return None,
        })
    }
}

/// One line of Envoy's log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Entry<'a> {
    pub(super) level: Level,
    /// The component that logs, such as `config` or `upstream`; empty when the line has none.
    pub(super) logger: &'a str,
    pub(super) message: &'a str,
}

impl<'a> Entry<'a> {
    /// Parses a line of the bootstrap's format or, from before Envoy has read that, of Envoy's own. Any other line is
    /// information.
    pub(super) fn parse(line: &'a str) -> Self {
        let other = Self {
            level: Level::Info,
            logger: "",
            message: line,
        };
        configured(line).or_else(|| built_in(line)).unwrap_or(other)
    }
}

/// Parses the bootstrap's format: `TIME\tLEVEL\tenvoy LOGGER FILE:LINE\tMESSAGE\tthread=N`.
fn configured(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.splitn(4, '\t').skip(1);
    let level = Level::parse(fields.next()?)?;
    let origin = fields.next()?.strip_prefix("envoy ")?;
    let rest = fields.next()?;
    let message = match rest.rsplit_once('\t') {
        Some((message, thread)) if thread.starts_with("thread=") => message,
        _ => rest,
    };
    let logger = origin.split(' ').next().unwrap_or_default();
    Some(Entry { level, logger, message })
}

/// Parses Envoy's own format: `[TIME][THREAD][LEVEL][LOGGER] [FILE:LINE] MESSAGE`.
fn built_in(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.strip_prefix('[')?.splitn(4, "][");
    let level = Level::parse(fields.nth(2)?)?;
    let (logger, rest) = fields.next()?.split_once("] ")?;
    let message = match rest.split_once("] ") {
        Some((origin, message)) if origin.starts_with('[') => message,
        _ => rest,
    };
    Some(Entry { level, logger, message })
}
