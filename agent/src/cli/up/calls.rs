//! The calls in the end: one from this VM through its own Envoy, and how a pod makes the other.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::phase::Phase;
use super::services::{Service, callable, own};
use crate::cli::Outcome;
use crate::envoy::Admin;
use crate::envoy::view::{Cluster, ClusterStatus, ClusterStatuses, Dump, views};
use crate::facts::{Membership, ProbeState};
use crate::part::Site;
use crate::status;
use crate::terminal::one_line;

/// The longest wait for a connection, and for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The most services that are called until one answers.
const MOST_CALLS: usize = 3;
/// The longest wait until this VM is among the endpoints that istiod gives: it reports the VM healthy after the first probe, and
/// pushes after its debounce, which ends after 10 s at most.
const ARRIVAL: Duration = Duration::from_secs(10);
/// The time between two looks at Envoy's endpoints.
const LOOK: Duration = Duration::from_millis(200);
/// The bytes of an answer that are looked at.
const HEAD: usize = 64;
/// Codes with which Envoy answers for a service that it can't reach.
const UNREACHED: [&str; 3] = ["502", "503", "504"];
/// Code of a server of gRPC for a request that has not its content type (gRPC over HTTP2, Requests).
const GRPC: &str = "415";

/// Calls a service of the mesh by its name, and says how pods call this VM.
pub(super) async fn make(site: &Site, membership: &Membership, named: Option<&str>) -> Result<Outcome> {
    let admin = Admin::of(&site.host, &site.config.paths);
    let outcome = outbound(&clusters(&admin).await.unwrap_or_default(), membership, named).await?;
    let mut phase = Phase::begin("Calls to it")?;
    phase.tell("until istiod lists this VM")?;
    let services = until_listed(async || clusters(&admin).await.unwrap_or_default(), membership).await;
    let Some(service @ Service { host, port }) = services.first() else {
        let socket = site.config.paths.status_socket();
        let status = status::ask(&socket, status::QUICK_TIMEOUT).await.ok();
        let probe = status.and_then(|status| status.section("probe")).unwrap_or_default();
        phase.end(&unlisted(&probe))?;
        return Ok(outcome);
    };
    phase.end(&format!("pods call this VM as {host}:{port}; from one with a shell:"))?;
    let is_http2 = speaks_http2(&admin, service).await.unwrap_or_default();
    super::print(&format!(
        "  kubectl --namespace {} exec deploy/YOUR-DEPLOYMENT -- {}\n",
        membership.spiffe_id.namespace,
        client(service, is_http2)
    ))?;
    Ok(outcome)
}

/// Why istiod lists this VM in no Service: it lists none that is unhealthy.
fn unlisted(probe: &ProbeState) -> String {
    match probe {
        ProbeState::Unhealthy { reason } => {
            format!("none come before the application is healthy: {}", one_line(reason))
        }
        ProbeState::Unknown => {
            "none come before the probe has found the application healthy: `istio-vm-agent status` says \
                                when it has"
                .to_owned()
        }
        ProbeState::Healthy | ProbeState::NotConfigured => {
            "Envoy knows no Service with this VM in it: have one select the labels of its WorkloadGroup, as \
             `istio-vm-agent manifests` prints it"
                .to_owned()
        }
    }
}

/// The services that this VM is an endpoint of, as soon as there is one; none when none has come in time.
async fn until_listed(look: impl AsyncFn() -> Vec<ClusterStatus>, membership: &Membership) -> Vec<Service> {
    let listed = async {
        loop {
            let services = own(&look().await, &membership.instance_ips);
            if !services.is_empty() {
                return services;
            }
            sleep(LOOK).await;
        }
    };
    timeout(ARRIVAL, listed).await.unwrap_or_default()
}

/// The command that calls a service in plaintext, to which its pod's Envoy adds mTLS.
fn client(Service { host, port }: &Service, is_http2: bool) -> String {
    match is_http2 {
        true => format!("grpcurl -plaintext {host}:{port} list"),
        false => format!("curl --verbose http://{host}:{port}/"),
    }
}

/// True when the mesh takes a service's port for HTTP/2 or gRPC.
async fn speaks_http2(admin: &Admin, service: &Service) -> Result<bool> {
    let text = timeout(CALL_TIMEOUT, admin.document("/config_dump")).await??;
    let clusters: Vec<Cluster> = views(&Dump::parse(&text)?.clusters);
    let of_it = clusters
        .iter()
        .find(|it| Service::of(&it.name).as_ref() == Some(service));
    Ok(of_it.is_some_and(Cluster::is_http2))
}

async fn outbound(clusters: &[ClusterStatus], membership: &Membership, named: Option<&str>) -> Result<Outcome> {
    let mut phase = Phase::begin("Calls from it")?;
    let targets = match named {
        Some(target) => vec![target.to_owned()],
        None => callable(clusters, &membership.instance_ips, &membership.spiffe_id.namespace)
            .iter()
            .take(MOST_CALLS)
            .map(|Service { host, port }| format!("{host}:{port}"))
            .collect(),
    };
    if targets.is_empty() {
        phase.end("none was made: Envoy knows no Service with a healthy endpoint; name one with --call")?;
        return Ok(Outcome::Fine);
    }
    let mut failed = Vec::new();
    for target in targets {
        phase.tell(&target)?;
        match judged(call(&target).await) {
            Ok(text) => {
                phase.end(&format!("{target} {text}"))?;
                return Ok(Outcome::Fine);
            }
            Err(text) => failed.push(format!("{target} {text}; `istio-vm-agent explain {target}` says why")),
        }
    }
    phase.end(&format!("warning: none of {} has succeeded", failed.len()))?;
    for line in failed {
        super::print(&format!("  {}\n", one_line(&line)))?;
    }
    // Somebody else's service that is down is no fault of this VM.
    Ok(match named {
        None => Outcome::Fine,
        Some(_) => Outcome::Wrong,
    })
}

/// Outcome of a call, in words.
///
/// # Errors
/// When the service was not reached.
fn judged(called: Result<Answer>) -> Result<String, String> {
    match called {
        Ok(Answer::Http(status)) if UNREACHED.contains(&status.as_str()) => Err(format!("answers HTTP {status}")),
        Ok(Answer::Http(status)) if status == GRPC => Ok(format!(
            "answers HTTP {status}: it is reached, and a gRPC service answers a plain GET so"
        )),
        Ok(Answer::Http(status)) => Ok(format!("answers HTTP {status}")),
        Ok(Answer::Other) => Ok("answers, and speaks no HTTP/1".to_owned()),
        Ok(Answer::Silence) => Ok("takes the connection, and says nothing to HTTP/1".to_owned()),
        Err(error) => Err(format!("does not answer: {error:#}")),
    }
}

async fn clusters(admin: &Admin) -> Result<Vec<ClusterStatus>> {
    let text = timeout(CALL_TIMEOUT, admin.document("/clusters?format=json")).await??;
    let statuses: ClusterStatuses = serde_json::from_str(&text).context("Envoy's /clusters")?;
    Ok(statuses.cluster_statuses)
}

/// Answer of a service to a request of HTTP/1.1.
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
    let connected = timeout(CALL_TIMEOUT, TcpStream::connect(target)).await;
    let mut stream = connected.map_err(|_| anyhow!("no connection within {CALL_TIMEOUT:?}"))??;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {target}\r\nUser-Agent: istio-vm-agent\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; HEAD];
    match timeout(CALL_TIMEOUT, stream.read(&mut head)).await {
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

    #[test]
    fn service_of_grpc_that_answers_a_plain_get_is_told_to_be_reached() {
        let said = |status: &str| judged(Ok(Answer::Http(status.to_owned())));
        assert!(said("415").unwrap().contains("it is reached"));
        assert_eq!(said("404").unwrap(), "answers HTTP 404");
        assert!(said("503").is_err());
    }

    /// A service on loopback that says so to every caller.
    async fn serving(said: &'static str) -> ClusterStatus {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 512]).await;
                let _ = stream.write_all(said.as_bytes()).await;
            }
        });
        let status = serde_json::json!({ "name": format!("outbound|{port}||127.0.0.1"), "host_statuses": [{
            "address": { "socket_address": { "address": "10.9.9.9", "port_value": 1 } },
            "health_status": { "eds_health_status": "HEALTHY" },
        }] });
        serde_json::from_value(status).unwrap()
    }

    #[tokio::test]
    async fn service_that_is_down_is_passed_over_and_told_where_all_are() {
        let down = || serving("HTTP/1.1 503 Service Unavailable\r\n\r\n");
        let member = crate::control_plane::fixtures::membership();
        let found = [down().await, down().await];
        let named = |cluster: &ClusterStatus| {
            let Service { host, port } = Service::of(&cluster.name).unwrap();
            format!("{host}:{port}")
        };
        assert_eq!(outbound(&found, &member, None).await.unwrap(), Outcome::Fine);
        let target = named(&found[0]);
        assert_eq!(outbound(&found, &member, Some(&target)).await.unwrap(), Outcome::Wrong);
        let well = named(&serving("HTTP/1.1 404 Not Found\r\n\r\n").await);
        assert_eq!(outbound(&found, &member, Some(&well)).await.unwrap(), Outcome::Fine);
    }

    #[tokio::test(start_paused = true)]
    async fn vm_that_istiod_lists_later_is_waited_for_and_one_that_it_never_lists_is_not() {
        let member = crate::control_plane::fixtures::membership();
        let status: ClusterStatus = serde_json::from_value(serde_json::json!({
            "name": "outbound|3550||catalog.shop.svc.cluster.local",
            "host_statuses": [{
                "address": { "socket_address": { "address": member.instance_ips[0], "port_value": 3550 } },
                "health_status": { "eds_health_status": "HEALTHY" },
            }],
        }))
        .unwrap();
        let looks = std::cell::Cell::new(0);
        let pushed_later = async || {
            looks.set(looks.get() + 1);
            if looks.get() < 3 {
                Vec::new()
            } else {
                vec![status.clone()]
            }
        };
        assert_eq!(until_listed(pushed_later, &member).await[0].port, 3550);
        assert_eq!(until_listed(async || Vec::new(), &member).await, []);
    }

    #[test]
    fn vm_that_is_unhealthy_is_told_its_probes_words_and_no_selector() {
        let reason = "tcp 127.0.0.1:3550: connection refused".to_owned();
        let told = unlisted(&ProbeState::Unhealthy { reason: reason.clone() });
        assert!(told.contains(&reason) && !told.contains("select"), "{told}");
        assert!(!unlisted(&ProbeState::Unknown).contains("select"));
        assert!(unlisted(&ProbeState::Healthy).contains("select the labels"));
    }

    #[test]
    fn call_that_is_proposed_is_one_that_the_port_understands() {
        let dump = Dump::parse(include_str!("../../../tests/golden/proxy/config_dump.json")).unwrap();
        let clusters: Vec<Cluster> = views(&dump.clusters);
        let http2 = clusters.iter().filter(|it| it.is_http2());
        let services: Vec<Service> = http2.filter_map(|it| Service::of(&it.name)).collect();
        let ports: Vec<u16> = services.iter().map(|it| it.port).collect();
        assert_eq!(ports, [3550, 7070]);
        let service = Service {
            host: "catalog.shop.svc".to_owned(),
            port: 3550,
        };
        assert!(client(&service, true).starts_with("grpcurl -plaintext catalog.shop.svc:3550"));
        assert!(client(&service, false).ends_with("http://catalog.shop.svc:3550/"));
    }
}
