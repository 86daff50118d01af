//! The two texts that Prometheus reads, and who wants which.

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
