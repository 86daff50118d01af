//! Events as journald takes them: fields by name, in one datagram each
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL).

use std::fmt::{Debug, Write as _};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::queue::Queue;

/// Where journald listens.
pub(super) const JOURNALD: &str = "/run/systemd/journal/socket";
/// Longest value of a field, in bytes: an entry of some of these is no longer than a datagram may be (net.core.wmem_default).
const MAX_VALUE: usize = 64 << 10;

/// Sends each entry to the socket at a path.
#[derive(Debug)]
pub(super) struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Socket {
    /// # Errors
    /// When nobody listens there.
    pub(super) fn to(path: PathBuf) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(&path)?;
        // Each entry goes to whoever listens there then: journald may come anew.
        let socket = UnixDatagram::unbound()?;
        Ok(Self { socket, path })
    }
}

impl Write for Socket {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.socket.send_to(entry, &self.path)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Queues each event as an entry.
#[derive(Debug)]
pub(super) struct Journal(Queue);

impl Journal {
    pub(super) fn new(queue: Queue) -> Self {
        Self(queue)
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut entry = Entry::default();
        entry.put("PRIORITY", priority(*metadata.level()));
        entry.put("TARGET", metadata.target());
        entry.put("SYSLOG_IDENTIFIER", "istio-vm-agent");
        if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
            entry.put("CODE_FILE", file);
            entry.put("CODE_LINE", &line.to_string());
        }
        event.record(&mut entry);
        // The queue takes what it has room for.
        let _ = self.0.clone().write_all(&entry.0);
    }
}

/// syslog(3)'s; INFO is `notice`.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        Level::TRACE => "7",
    }
}

#[derive(Default)]
struct Entry(Vec<u8>);

impl Entry {
    /// By its length, so that a value of several lines is no field of somebody else's words.
    fn put(&mut self, name: &str, value: &str) {
        let value = value.as_bytes();
        let value = value.get(..MAX_VALUE).unwrap_or(value);
        let name = name
            .bytes()
            .filter(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
        self.0.extend(name.map(|byte| byte.to_ascii_uppercase()));
        self.0.push(b'\n');
        self.0.extend((value.len() as u64).to_le_bytes());
        self.0.extend(value);
        self.0.push(b'\n');
    }
}

impl Visit for Entry {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = String::new();
        // Writing to a String fails where the value can't be told.
        let _ = write!(text, "{value:?}");
        self.put(field.name(), &text);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry::Registry;

    use super::*;
    use crate::bounds::Refusals;

    #[test]
    fn entry_has_the_fields_of_its_event() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let queue = Queue::start(Socket::to(path).unwrap(), Refusals::default(), |_| ()).unwrap();
        tracing::subscriber::with_default(Registry::default().with(Journal::new(queue)), || {
            tracing::info!(target: "envoy", code = "x.y", took = 7, "two\nlines");
        });
        let mut buffer = [0; 4096];
        let length = journald.recv(&mut buffer).unwrap();
        let mut entry = &buffer[..length];
        let mut fields = Vec::new();
        while let Some(end) = entry.iter().position(|byte| *byte == b'\n') {
            let (name, rest) = entry.split_at(end);
            let (length, rest) = rest[1..].split_first_chunk().unwrap();
            let (value, rest) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).unwrap());
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            fields.push((text(name), text(value)));
            entry = &rest[1..];
        }
        fields.retain(|(name, _)| !name.starts_with("CODE_"));
        let expected = [
            ("PRIORITY", "5"),
            ("TARGET", "envoy"),
            ("SYSLOG_IDENTIFIER", "istio-vm-agent"),
            ("MESSAGE", "two\nlines"),
            ("CODE", "x.y"),
            ("TOOK", "7"),
        ];
        assert_eq!(
            fields,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }
}
