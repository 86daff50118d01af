//! Probes over the network.
//!
//! On the VM their source is 127.0.0.6, as that of what Envoy itself sends to the application: the rules let it pass, so a
//! probe asks the application and not the mesh.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result, anyhow, bail};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use hyper_util::rt::TokioIo;
use istio_api::health::health_check_response::ServingStatus;
use istio_api::health::{HealthCheckRequest, health_client::HealthClient};
use reqwest::redirect::Policy;
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tonic::Code;
use tonic::transport::Endpoint;

use super::Place;
use crate::config::ports::INBOUND_PASSTHROUGH;
use crate::facts::{ProbeKind, Scheme};

/// User-Agent of Istio's own probes (istio/pkg/istio-agent/health).
const USER_AGENT: &str = "istio-probe/1.0";
/// INBOUND_PASSTHROUGH's counterpart; Istio's rules put it on lo, ours may not have to.
const INBOUND_PASSTHROUGH_V6: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6);
/// A health response is a few bytes.
const MAX_GRPC_RESPONSE: usize = 4 << 10;

/// A connection that opens is healthy.
pub(super) async fn tcp(place: Place, host: Option<&str>, port: u16) -> Result<()> {
    connect(place, target(place, host, port).await?).await.map(drop)
}

/// grpc.health.v1.Health/Check; only SERVING is healthy.
pub(super) async fn grpc(place: Place, port: u16, service: &str) -> Result<()> {
    let target = target(place, None, port).await?;
    // Dialled before tonic has it, because its errors hide the cause.
    let mut stream = Some(connect(place, target).await?);
    let channel = Endpoint::from_shared(format!("http://{target}"))?
        .user_agent(USER_AGENT)?
        .connect_with_connector(tower::service_fn(move |_| {
            let stream = stream.take().ok_or_else(|| anyhow!("the connection was closed"));
            std::future::ready(stream.map(TokioIo::new))
        }))
        .await
        .with_context(|| format!("{target} does not speak HTTP/2"))?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let mut client = HealthClient::new(channel).max_decoding_message_size(MAX_GRPC_RESPONSE);
    match client.check(request).await {
        Ok(response) => match response.get_ref().status() {
            ServingStatus::Serving => Ok(()),
            status => bail!("the server on port {port} answers {}", status.as_str_name()),
        },
        Err(status) => match status.code() {
            Code::Unimplemented => bail!("the server on port {port} does not implement grpc.health.v1.Health"),
            Code::NotFound => bail!("the server on port {port} knows no service {service:?}"),
            code => bail!("the health check on port {port} failed: {code:?}: {}", status.message()),
        },
    }
}

/// GET; 200 to 399 is healthy, so a redirection is, and isn't followed. The body isn't read.
pub(super) async fn http(place: Place, probe: &ProbeKind) -> Result<()> {
    let ProbeKind::Http {
        host,
        port,
        path,
        scheme,
        headers,
    } = probe
    else {
        bail!("is no HTTP probe");
    };
    let target = target(place, host.as_deref(), *port).await?;
    let scheme = match scheme {
        Scheme::Http => "http",
        Scheme::Https => "https",
    };
    let authority = match host {
        Some(name) if name.parse::<IpAddr>().is_err() => format!("{name}:{port}"),
        _ => target.to_string(),
    };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let client = client(place, host.as_deref(), target)?;
    let request = client
        .get(format!("{scheme}://{authority}{slash}{path}"))
        .headers(header_map(headers)?);
    let response = request.send().await.map_err(reqwest::Error::without_url)?;
    match response.status().as_u16() {
        200..400 => Ok(()),
        status => bail!("{scheme}://{authority}{slash}{path} answers {status}"),
    }
}

fn client(place: Place, host: Option<&str>, target: SocketAddr) -> Result<reqwest::Client> {
    // reqwest takes the process's provider; that there is one already is fine.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .user_agent(USER_AGENT)
        .local_address(source(place, target.ip()))
        // As Kubernetes: a probe asks whether it lives, not who it is.
        .tls_danger_accept_invalid_certs(true);
    if let Some(name) = host {
        builder = builder.resolve(name, target);
    }
    builder.build().context("failed to set up the HTTP client")
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let key: HeaderName = name.parse().with_context(|| format!("{name:?} is no header's name"))?;
        let value: HeaderValue = value
            .parse()
            .with_context(|| format!("the value of {name} is no header's"))?;
        map.append(key, value);
    }
    Ok(map)
}

async fn target(place: Place, host: Option<&str>, port: u16) -> Result<SocketAddr> {
    let name = match (place, host) {
        (Place::Container(ip), _) => return Ok(SocketAddr::new(ip, port)),
        (Place::Vm(_), Some(name)) => name,
        (Place::Vm(ip), None) => {
            let ip = ip.context("this VM has no address in the mesh")?;
            return Ok(SocketAddr::new(ip, port));
        }
    };
    let name = name.trim_matches(['[', ']']);
    let found: Vec<SocketAddr> = lookup_host((name, port))
        .await
        .with_context(|| format!("failed to resolve {name}"))?
        .collect();
    // IPv4 for preference: from its source the rules let a probe pass in any case.
    let best = found.iter().find(|address| address.is_ipv4()).or_else(|| found.first());
    let best = best.copied().with_context(|| format!("{name} has no address"))?;
    // From 127.0.0.6 nothing leaves the VM; of IPv6 it has to be said.
    if best.is_ipv6() && !is_own(best.ip()) {
        bail!("{name} is no address of this VM, and a probe asks what runs on it: give it no host, or localhost");
    }
    Ok(best)
}

async fn connect(place: Place, target: SocketAddr) -> Result<TcpStream> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if let Some(source) = source(place, target.ip()) {
        socket.bind(SocketAddr::new(source, 0)).with_context(|| {
            format!("failed to probe from {source}, which lo has to have (`ip address add 127.0.0.1/8 dev lo`)")
        })?;
    }
    socket
        .connect(target)
        .await
        .with_context(|| format!("failed to connect to {target}"))
}

/// A loopback address is none to a container: the kernel drops what it would send there.
fn source(place: Place, target: IpAddr) -> Option<IpAddr> {
    match target {
        _ if matches!(place, Place::Container(_)) => None,
        IpAddr::V4(_) => Some(INBOUND_PASSTHROUGH.into()),
        IpAddr::V6(_) => is_own(INBOUND_PASSTHROUGH_V6.into()).then_some(INBOUND_PASSTHROUGH_V6.into()),
    }
}

fn is_own(ip: IpAddr) -> bool {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    ip.is_loopback() || interfaces.iter().any(|interface| interface.ip() == ip)
}
