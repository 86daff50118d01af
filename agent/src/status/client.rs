//! Asks the running agent.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::Status;

/// Longest wait of `status`, which promises 200 ms and looks at the host itself after this.
pub const QUICK_TIMEOUT: Duration = Duration::from_millis(100);
/// Longest wait of a verb that acts on the answer: an agent on a busy machine must not be taken for one that is stuck.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// The running agent's document when all of it is in `within` this time, or in a few words why there is none.
/// That no agent runs is said at once.
pub async fn ask(socket: &Path, within: Duration) -> Result<Status, String> {
    let answer = async {
        // No root certificates: plain HTTP needs none, and on a VM without ca-certificates there are none to load.
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            .no_proxy()
            .tls_certs_only([])
            .build()?;
        client
            .get("http://agent/status")
            .send()
            .await?
            .error_for_status()?
            .json::<Status>()
            .await
    };
    match timeout(within, answer).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) if error.is_connect() => Err("not running".to_owned()),
        Ok(Err(error)) => Err(format!("answers nonsense: {error}")),
        Err(_) => Err(format!(
            "runs, and doesn't answer within {within:?}: it is stuck or stopped"
        )),
    }
}
