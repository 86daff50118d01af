//! The calls in the end: one from this VM through its own Envoy, and how a pod makes the other.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::phase::Phase;
use super::services::{Service, callable, own};
use crate::cli::Outcome;
use crate::envoy::Admin;
use crate::envoy::view::{ClusterStatus, ClusterStatuses};
use crate::facts::Membership;
use crate::part::Site;

/// The longest wait for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The bytes of an answer that are looked at.
const HEAD: usize = 64;
/// What Envoy says for a service that it can't reach.
const UNREACHED: [&str; 3] = ["502", "503", "504"];

/// Calls a service of the mesh by its name, and says how pods call this VM.
pub(super) async fn make(site: &Site, membership: &Membership, named: Option<&str>) -> Result<Outcome> {
    let clusters = clusters(site).await.unwrap_or_default();
    let outcome = outbound(&clusters, membership, named).await?;
    let mut phase = Phase::begin("Calls to it")?;
    let services = own(&clusters, &membership.instance_ips);
    let Some(Service { host, port }) = services.first() else {
        phase.end(
            "Envoy knows no Service with this VM in it: have one select the labels of its WorkloadGroup, as \
             `istio-vm-agent manifests` prints it",
        )?;
        return Ok(outcome);
    };
    phase.end(&format!("pods call this VM as {host}:{port}; from one with a shell:"))?;
    super::print(&format!(
        "  kubectl --namespace {} exec deploy/YOUR-DEPLOYMENT -- curl --verbose http://{host}:{port}/\n",
        membership.spiffe_id.namespace
    ))?;
    Ok(outcome)
}

async fn outbound(clusters: &[ClusterStatus], membership: &Membership, named: Option<&str>) -> Result<Outcome> {
    let mut phase = Phase::begin("Calls from it")?;
    let found = callable(clusters, &membership.instance_ips, &membership.spiffe_id.namespace);
    let target = match (named, found) {
        (Some(target), _) => target.to_owned(),
        (None, Some(Service { host, port })) => format!("{host}:{port}"),
        (None, None) => {
            phase.end("none was made: Envoy knows no Service with a healthy endpoint; name one with --call")?;
            return Ok(Outcome::Fine);
        }
    };
    phase.tell(&target)?;
    let (text, is_answered) = match call(&target).await {
        Ok(Answer::Http(status)) if UNREACHED.contains(&status.as_str()) => (format!("answers HTTP {status}"), false),
        Ok(Answer::Http(status)) => (format!("answers HTTP {status}"), true),
        Ok(Answer::Other) => ("answers, and speaks no HTTP/1".to_owned(), true),
        Ok(Answer::Silence) => ("takes the connection, and says nothing to HTTP/1".to_owned(), true),
        Err(error) => (format!("does not answer: {error:#}"), false),
    };
    let why = match is_answered {
        true => String::new(),
        false => format!("; `istio-vm-agent explain {target}` says why"),
    };
    phase.end(&format!("{target} {text}{why}"))?;
    // Somebody else's service that is down is no fault of this VM.
    Ok(match is_answered || named.is_none() {
        true => Outcome::Fine,
        false => Outcome::Wrong,
    })
}

async fn clusters(site: &Site) -> Result<Vec<ClusterStatus>> {
    let admin = Admin::of(&site.host, &site.config.paths);
    let text = timeout(PATIENCE, admin.document("/clusters?format=json")).await??;
    let statuses: ClusterStatuses = serde_json::from_str(&text).context("Envoy's /clusters")?;
    Ok(statuses.cluster_statuses)
}

/// What a service says to a request of HTTP/1.1.
#[derive(Debug, Eq, PartialEq)]
enum Answer {
    /// A status.
    Http(String),
    /// Anything else.
    Other,
    /// Nothing, on a connection that stays.
    Silence,
}

async fn call(target: &str) -> Result<Answer> {
    let connected = timeout(PATIENCE, TcpStream::connect(target)).await;
    let mut stream = connected.map_err(|_| anyhow!("no connection within {PATIENCE:?}"))??;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {target}\r\nUser-Agent: istio-vm-agent\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; HEAD];
    match timeout(PATIENCE, stream.read(&mut head)).await {
        Err(_) => Ok(Answer::Silence),
        Ok(Ok(0)) => Err(anyhow!("the connection was closed without a word")),
        Ok(Ok(count)) => Ok(answer(&head[..count])),
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Err(anyhow!("the connection was reset")),
        Ok(Err(error)) => Err(error.into()),
    }
}

fn answer(head: &[u8]) -> Answer {
    let status = head
        .strip_prefix(b"HTTP/1.1 ".as_slice())
        .or_else(|| head.strip_prefix(b"HTTP/1.0 ".as_slice()))
        .and_then(|rest| rest.get(..3))
        .filter(|status| status.iter().all(u8::is_ascii_digit));
    status.map_or(Answer::Other, |status| {
        Answer::Http(String::from_utf8_lossy(status).into_owned())
    })
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn call_tells_what_came() {
        for (said, wanted) in [
            (
                &b"HTTP/1.1 503 Service Unavailable\r\n"[..],
                Some(Answer::Http("503".to_owned())),
            ),
            (b"HTTP/1.0 404", Some(Answer::Http("404".to_owned()))),
            (b"HTTP/1.1 OK", Some(Answer::Other)),
            (b"\0\0\x12\x04", Some(Answer::Other)),
            (b"", None),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let target = listener.local_addr().unwrap().to_string();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 512];
                let count = stream.read(&mut request).await.unwrap();
                assert!(request[..count].ends_with(b"\r\n\r\n"));
                stream.write_all(said).await.unwrap();
            };
            let (found, ()) = tokio::join!(call(&target), serve);
            assert_eq!(found.ok(), wanted, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn service_that_says_nothing_has_taken_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().to_string();
        let (found, _kept) = tokio::join!(call(&target), async { listener.accept().await.unwrap() });
        assert_eq!(found.unwrap(), Answer::Silence);
    }
}
