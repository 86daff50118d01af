//! Asks the running agent.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use http::Method;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::Status;
use crate::web::exchange;

/// Longest wait of `status`, which promises 200 ms and looks at the host itself after this.
pub const QUICK_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest wait of a verb that acts on the answer: an agent on a busy machine must not be taken for one that is stuck.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest document that is read, in bytes.
const MAX_DOCUMENT_BYTES: usize = 4 << 20;

/// The running agent's document when all of it is in `within` this time, or in a few words why there is none.
/// That no agent runs is said at once.
pub async fn ask(socket: &Path, within: Duration) -> Result<Status, String> {
    let answer = async {
        let stream = UnixStream::connect(socket).await;
        let stream = stream.map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => format!("only root may ask at {}", socket.display()),
            _ => "not running".to_owned(),
        })?;
        let document = async {
            let (status, body) = exchange(stream, &Method::GET, "/status", MAX_DOCUMENT_BYTES).await?;
            ensure!(status.is_success(), "it answered {status}");
            anyhow::Ok(serde_json::from_slice(&body)?)
        };
        document.await.map_err(|error| format!("answers nonsense: {error:#}"))
    };
    timeout(within, answer).await.unwrap_or_else(|_| {
        Err(format!(
            "it runs, and doesn't answer within {within:?}: it is stuck or stopped"
        ))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn ask_tells_an_absent_agent_from_one_that_answers_nonsense() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("status.sock");
        assert_eq!(ask(&socket, BUSY_TIMEOUT).await.unwrap_err(), "not running");
        let listener = UnixListener::bind(&socket).unwrap();
        let stuck = ask(&socket, Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(stuck, "it runs, and doesn't answer within 1ms: it is stuck or stopped");
        drop(listener.accept().await.unwrap());
        let serve = async |answer: &str| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        for (answer, words) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404 Not Found"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{", "EOF"),
        ] {
            let (asked, ()) = tokio::join!(ask(&socket, BUSY_TIMEOUT), serve(answer));
            let reason = asked.unwrap_err();
            assert!(
                reason.starts_with("answers nonsense: ") && reason.contains(words),
                "{reason}"
            );
        }
        drop(listener);
        assert_eq!(ask(&socket, BUSY_TIMEOUT).await.unwrap_err(), "not running");
    }
}
