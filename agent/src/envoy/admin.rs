//! A client of Envoy's admin interface. Every answer is bounded in time and size.

mod stats;

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use http::{Method, StatusCode};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::build_name::parse_version;
use crate::bounds::bounded_words;
use crate::config::{PathsConfig, ports};
use crate::host::Host;
use crate::web::exchange;

pub(super) use stats::Load;
pub use stats::Readiness;

/// The longest that one request and its answer may take.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest answer, in bytes: the stats asked for are a few lines for each listener.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// The longest page for people, in bytes: a configuration of thousands of clusters.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// The longest document for people, in bytes: a configuration with 10,000 services has some 100 MB.
const MAX_DOCUMENT_BYTES: usize = 256 << 20;
/// The longest that such a document may take.
const DOCUMENT_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest reason for a refusal that is repeated, in characters.
const MAX_WORDS: usize = 200;

/// A client of Envoy's admin interface; each call is a connection of its own.
#[derive(Clone, Debug)]
pub struct Admin {
    socket: PathBuf,
}

impl Admin {
    /// Makes a client of the interface at `socket`; connects to nothing yet.
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// A client of the Envoy that serves on this host.
    pub fn of(host: &Host, paths: &PathsConfig) -> Self {
        Self::new(host.real_path(&paths.admin_socket()))
    }

    /// Asks for a document: `/config_dump`, `/clusters`, `/stats`. Changes nothing.
    ///
    /// # Errors
    /// When no Envoy of ours answers, or with another status than 200.
    pub async fn document(&self, path: &str) -> Result<String> {
        self.exchange(Method::GET, path, MAX_DOCUMENT_BYTES, DOCUMENT_TIMEOUT)
            .await
    }

    /// Asks for the levels of Envoy's loggers, after a change of one or, by the name `level`, of all.
    ///
    /// # Errors
    /// Like those of `document`, and when Envoy knows no such logger or level.
    pub async fn log_levels(&self, change: Option<(&str, &str)>) -> Result<String> {
        let change = change.map(|(logger, level)| format!("?{logger}={level}"));
        self.call(Method::POST, &format!("/logging{}", change.unwrap_or_default()))
            .await
    }

    /// Asks for the stats by which Istio judges whether Envoy serves.
    pub async fn readiness(&self) -> Result<Readiness> {
        let text = self
            .call(Method::GET, &format!("/stats?filter={}", stats::READINESS_FILTER))
            .await?;
        Ok(Readiness::parse(&text))
    }

    /// Asks for the stats of the connections and requests that are under way.
    pub(super) async fn load(&self) -> Result<Load> {
        let text = self
            .call(Method::GET, &format!("/stats?filter={}", stats::LOAD_FILTER))
            .await?;
        Ok(Load::parse(&text))
    }

    /// Asks for its version, such as `1.40.0`.
    pub(super) async fn version(&self) -> Result<String> {
        server_version(&self.call(Method::GET, "/server_info").await?)
    }

    /// Asks for a page that shows something, of any length that is held.
    pub async fn show(&self, page: &str) -> Result<String> {
        self.exchange(Method::GET, page, MAX_PAGE_BYTES, EXCHANGE_TIMEOUT).await
    }

    /// Has Envoy ask its callers to go elsewhere: GOAWAY on HTTP/2, `connection: close` on HTTP/1. Envoy closes the
    /// inbound listeners once the drain time (`--drain-time-s`) is over.
    pub(super) async fn drain_inbound(&self) -> Result<()> {
        self.call(Method::POST, "/drain_listeners?inboundonly&graceful&skip_exit")
            .await?;
        Ok(())
    }

    /// Has Envoy accept no more, and its callers go elsewhere: another Envoy listens on the same ports.
    pub(super) async fn hand_over(&self) -> Result<()> {
        // In this order: callers who are told to go come back at once, and a connection that waits to be accepted when
        // its listener closes is reset.
        self.call(Method::POST, "/drain_listeners").await?;
        self.call(Method::POST, "/drain_listeners?graceful&skip_exit").await?;
        Ok(())
    }

    async fn call(&self, method: Method, path: &str) -> Result<String> {
        self.exchange(method, path, MAX_ANSWER_BYTES, EXCHANGE_TIMEOUT).await
    }

    async fn exchange(&self, method: Method, path: &str, max: usize, within: Duration) -> Result<String> {
        let answer = async {
            let (status, body) = exchange(connect(&self.socket).await?, &method, path, max).await?;
            accepted(status, &String::from_utf8_lossy(&body))
        };
        timeout(within, answer)
            .await
            .unwrap_or_else(|_| Err(anyhow!("no answer within {within:?}")))
            .with_context(|| {
                format!(
                    "failed to ask Envoy's admin interface {} for {path}",
                    self.socket.display()
                )
            })
    }
}

/// The text of a good answer. The words of any other go into the log and `status`: no more of them than fit there.
fn accepted(status: StatusCode, text: &str) -> Result<String> {
    let words = || bounded_words(text.trim(), MAX_WORDS);
    ensure!(status == StatusCode::OK, "it answered {status}: {}", words());
    Ok(text.to_owned())
}

/// The version in an answer of `/server_info` (envoy/admin/v3/server_info.proto).
pub(super) fn server_version(answer: &str) -> Result<String> {
    #[derive(Deserialize)]
    struct ServerInfo {
        version: String,
    }
    let info: ServerInfo = serde_json::from_str(answer).context("failed to read Envoy's /server_info")?;
    parse_version(&info.version)
}

async fn connect(socket: &Path) -> Result<UnixStream> {
    // The directory is Envoy's user's: whatever it put there must not be somebody else's socket, nor lead to one.
    let found = open(
        socket,
        OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    ensure!(
        SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK,
        "it is no socket"
    );
    let stream = UnixStream::connect(format!("/proc/self/fd/{}", found.as_raw_fd())).await?;
    let uid = stream.peer_cred()?.uid();
    ensure!(uid == ports::PROXY_UID, "it is served by user {uid}, not by Envoy's");
    Ok(stream)
}

/// The pid of the process that serves the interface at `socket`; `None` when none of Envoy's user does.
pub(super) async fn server_of(socket: &Path) -> Option<u32> {
    connect(socket).await.ok()?.peer_cred().ok()?.pid()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_refusal_are_repeated_up_to_their_bound() {
        assert_eq!(accepted(StatusCode::OK, "a: 1\n").unwrap(), "a: 1\n");
        let refused = |words: &str| accepted(StatusCode::NOT_FOUND, words).unwrap_err().to_string();
        assert_eq!(refused("no such path\n"), "it answered 404 Not Found: no such path");
        let long = refused(&"x".repeat(MAX_ANSWER_BYTES));
        assert!(
            long.len() < 2 * MAX_WORDS && long.ends_with("x…"),
            "{} bytes",
            long.len()
        );
    }

    #[test]
    fn version_is_read_of_the_server_s_own_description() {
        let answer = r#"{"version":"9e55809/1.40.0/Clean/RELEASE/BoringSSL","state":"LIVE"}"#;
        assert_eq!(server_version(answer).unwrap(), "1.40.0");
        for answer in ["", "{}", r#"{"version":"1.40.0"}"#, r#"{"version":7}"#] {
            assert!(server_version(answer).is_err(), "{answer}");
        }
    }
}
