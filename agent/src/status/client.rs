//! Asks the running agent.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::Status;

/// The whole answer must be in by then: `status` promises 200 ms, and looks at the host itself after this.
const DEADLINE: Duration = Duration::from_millis(100);

/// The running agent's document, or in a few words why there is none.
pub async fn ask(socket: &Path) -> Result<Status, String> {
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
    match timeout(DEADLINE, answer).await {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(error)) if error.is_connect() => Err("not running".to_owned()),
        Ok(Err(error)) => Err(format!("answers nonsense: {error}")),
        Err(_) => Err(format!(
            "runs, and doesn't answer within {DEADLINE:?}: it is stuck or stopped"
        )),
    }
}
