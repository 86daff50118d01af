use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::sync::mpsc;
use std::thread;

use istio_api::health::health_check_response::ServingStatus;
use istio_api::health::health_server::{Health, HealthServer};
use istio_api::health::{HealthCheckRequest, HealthCheckResponse};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, transport::Server};

use super::*;
use crate::config::ports::INBOUND_PASSTHROUGH;

/// Answers by the service's name.
struct Application;

#[tonic::async_trait]
impl Health for Application {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let peer = request.remote_addr().unwrap().ip();
        let status = match request.get_ref().service.as_str() {
            "" if peer == INBOUND_PASSTHROUGH => ServingStatus::Serving,
            "down" => ServingStatus::NotServing,
            "odd" => ServingStatus::ServiceUnknown,
            "slow" => std::future::pending().await,
            _ => return Err(Status::not_found("who?")),
        };
        Ok(Response::new(HealthCheckResponse { status: status.into() }))
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

#[tokio::test]
async fn probe_asks_what_runs_on_this_vm_and_nobody_else() {
    for kind in ["tcp", "http"] {
        let told = ask_once(&format!("{kind} = {{ host = '2001:db8::1', port = 80 }}"))
            .await
            .unwrap_err();
        assert!(told.contains("2001:db8::1 is no address of this VM"), "{told}");
    }
}

async fn serve_grpc(services: Routes) -> u16 {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::builder().add_routes(services);
    Scope::detached().0.spawn(async move {
        let connections = TcpListenerStream::new(listener);
        server.serve_with_incoming(connections).await.unwrap();
    });
    port
}

#[tokio::test]
async fn grpc_tells_serving_from_every_other_answer() {
    let port = serve_grpc(Routes::new(HealthServer::new(Application))).await;
    let check = async |service: &str, timeout: &str| {
        ask_once(&format!(
            "grpc = {{ port = {port}, service = '{service}' }}\ntimeout = '{timeout}'"
        ))
        .await
    };
    assert_eq!(check("", "20s").await, Ok(()));
    let cases = [
        ("down", "20s", "answers NOT_SERVING"),
        ("odd", "20s", "answers SERVICE_UNKNOWN"),
        ("other", "20s", "knows no service \"other\""),
        ("slow", "500ms", "no answer within 500ms"),
    ];
    for (service, timeout, expected) in cases {
        let reason = check(service, timeout).await.unwrap_err();
        assert!(reason.contains(expected), "{service}: {reason}");
    }
}

#[tokio::test]
async fn grpc_to_what_has_no_health_service_gives_a_reason() {
    let port = serve_grpc(Routes::default()).await;
    let reason = ask_once(&format!("grpc = {{ port = {port} }}\ntimeout = '20s'"))
        .await
        .unwrap_err();
    assert!(reason.contains("does not implement grpc.health.v1.Health"), "{reason}");

    let port = serve_raw("HTTP/1.1 400 Bad Request\r\n\r\n").0;
    let reason = ask_once(&format!("grpc = {{ port = {port} }}\ntimeout = '20s'"))
        .await
        .unwrap_err();
    assert!(!reason.contains("no answer"), "{reason}");
}

/// Accepts connections one by one, sends what it heard, and who said it, to the channel, and answers.
fn serve_raw(answer: &'static str) -> (u16, mpsc::Receiver<(IpAddr, String)>) {
    let (heard, hearing) = mpsc::channel();
    let port = serve_each(move |stream: StdStream| {
        let peer = stream.peer_addr().unwrap().ip();
        exchange(stream, answer).is_some_and(|request| heard.send((peer, request)).is_ok())
    });
    (port, hearing)
}

fn serve_each(mut each: impl FnMut(StdStream) -> bool + Send + 'static) -> u16 {
    let listener = StdListener::bind((LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || while each(listener.accept().unwrap().0) {});
    port
}

fn exchange(mut stream: impl Read + Write, answer: &str) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
    }
    stream.write_all(answer.as_bytes()).ok()?;
    Some(String::from_utf8_lossy(&request).into_owned())
}

#[tokio::test]
async fn http_judges_the_status_alone() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\nx", true),
        (
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            true,
        ),
        ("HTTP/1.1 399 Odd\r\ncontent-length: 0\r\n\r\n", true),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false),
        ("HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n", false),
    ];
    for (answer, healthy) in cases {
        let (port, _heard) = serve_raw(answer);
        let result = ask_once(&format!("http = {{ port = {port}, path = '/ok' }}\ntimeout = '20s'")).await;
        assert_eq!(result.is_ok(), healthy, "{answer}: {result:?}");
        if let Err(reason) = result {
            assert!(
                reason.contains(&format!("http://127.0.0.1:{port}/ok answers ")),
                "{reason}"
            );
        }
    }
}

#[tokio::test]
async fn http_asks_as_istio_does() {
    let (port, heard) = serve_raw("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    ask_once(&format!(
        "http = {{ port = {port}, path = '/ready?full=1' }}\ntimeout = '20s'"
    ))
    .await
    .unwrap();
    let (peer, request) = heard.recv().unwrap();
    assert_eq!(peer, INBOUND_PASSTHROUGH);
    assert!(request.starts_with("GET /ready?full=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("user-agent: istio-probe/1.0\r\n"), "{request}");

    let headers = "{ Host = 'shop.example', User-Agent = 'mine', X-A = 'b' }";
    let text = format!("http = {{ host = 'localhost', port = {port}, headers = {headers} }}\ntimeout = '20s'");
    ask_once(&text).await.unwrap();
    let request = heard.recv().unwrap().1.to_lowercase();
    for line in ["host: shop.example\r\n", "user-agent: mine\r\n", "x-a: b\r\n"] {
        assert!(request.contains(line), "{line}: {request}");
    }
    assert!(
        !request.contains("istio-probe") && !request.contains("host: localhost"),
        "{request}"
    );
}

#[tokio::test]
async fn https_takes_any_certificate() {
    let made = rcgen::generate_simple_self_signed(["elsewhere.example".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let tls = Arc::new(tls);
    let port = serve_each(move |stream| {
        let connection = rustls::ServerConnection::new(Arc::clone(&tls)).unwrap();
        let answer = "HTTP/1.1 204 No Content\r\n\r\n";
        exchange(rustls::StreamOwned::new(connection, stream), answer).is_some()
    });
    let text = format!("http = {{ port = {port}, scheme = 'https' }}\ntimeout = '20s'");
    assert_eq!(ask_once(&text).await, Ok(()));
}

#[tokio::test]
async fn closed_port_and_a_bad_name_say_so() {
    let free = StdListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    for kind in ["tcp", "grpc", "http"] {
        let reason = ask_once(&format!("{kind} = {{ port = {free} }}\ntimeout = '20s'"))
            .await
            .unwrap_err();
        assert!(reason.contains("Connection refused"), "{kind}: {reason}");
    }
    let text = format!("tcp = {{ host = 'no-such-name.invalid', port = {free} }}\ntimeout = '20s'");
    let reason = ask_once(&text).await.unwrap_err();
    assert!(reason.starts_with("failed to resolve no-such-name.invalid"), "{reason}");
}
