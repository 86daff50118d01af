use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use istio_api::rpc::Any;
use istio_api::sds::secret_discovery_service_client::SecretDiscoveryServiceClient;
use istio_api::sds::{Secret, data_source, secret};
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint, Uri};

use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::*;
use crate::control_plane::fixtures::{Ca, issued_by};
use crate::host::System;

const DEADLINE: Duration = Duration::from_secs(30);
const HOUR: Duration = Duration::from_secs(3600);

/// A served socket, and the credentials behind it.
struct Served {
    root: tempfile::TempDir,
    credentials: watch::Sender<Option<Arc<Credentials>>>,
    client: SecretDiscoveryServiceClient<Channel>,
    ca: Ca,
    refusals: Refusals,
    /// Ends the server when dropped last.
    drain: tokio_util::sync::CancellationToken,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

async fn served() -> Served {
    let root = tempfile::tempdir().unwrap();
    let meta = std::fs::metadata(root.path()).unwrap();
    let options = Options {
        host: Host::new(root.path(), System),
        socket: "/sds.sock".into(),
        owner: Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        },
        refusals: Refusals::default(),
    };
    let refusals = options.refusals.clone();
    let ((scope, drain), (credentials, receiver)) = (Scope::detached(), watch::channel(None));
    scope.clone().spawn(async move {
        serve(scope, options, receiver).await.unwrap();
    });
    let socket = root.path().join("sds.sock");
    let dial = move |_: Uri| {
        let socket = socket.clone();
        async move {
            // Until the server is up.
            loop {
                match UnixStream::connect(&socket).await {
                    Ok(stream) => return Ok::<_, std::io::Error>(TokioIo::new(stream)),
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        }
    };
    let endpoint = Endpoint::from_static("http://sds");
    let channel = endpoint.connect_with_connector(tower::service_fn(dial));
    let client = SecretDiscoveryServiceClient::new(timeout(DEADLINE, channel).await.unwrap().unwrap());
    Served {
        root,
        credentials,
        client,
        ca: Ca::new("mesh"),
        refusals,
        drain,
    }
}

impl Served {
    fn refused(&self, what: &str) -> u64 {
        let refused = self.refusals.all();
        refused.iter().find(|one| one.what == what).map_or(0, |one| one.count)
    }

    fn rotate(&self) -> Arc<Credentials> {
        let now = SystemTime::now();
        let new = Arc::new(issued_by(&self.ca, now, now + HOUR));
        self.credentials.send_replace(Some(Arc::clone(&new)));
        new
    }

    async fn stream(&mut self, names: &[&str]) -> Conversation<DiscoveryRequest, DiscoveryResponse> {
        let (requests, receiver) = mpsc::channel(9);
        requests.send(request(names)).await.unwrap();
        let responses = self.client.stream_secrets(ReceiverStream::new(receiver)).await.unwrap();
        Conversation {
            requests,
            responses: responses.into_inner(),
        }
    }
}

struct Conversation<Q, A> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<A>,
}

impl<Q, A> Conversation<Q, A> {
    async fn ask(&self, request: Q) {
        self.requests.send(request).await.ok().unwrap();
    }

    async fn next(&mut self) -> A {
        timeout(DEADLINE, self.responses.message())
            .await
            .unwrap()
            .unwrap()
            .unwrap()
    }
}

fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    }
}

fn secret(any: &Any) -> (String, String) {
    let secret = Secret::decode(any.value.clone()).unwrap();
    let source = match secret.r#type.unwrap() {
        secret::Type::TlsCertificate(pair) => pair.private_key,
        secret::Type::ValidationContext(context) => context.trusted_ca,
    };
    let Some(data_source::Specifier::InlineBytes(bytes)) = source.unwrap().specifier else {
        panic!("not inline");
    };
    (secret.name, String::from_utf8(bytes.to_vec()).unwrap())
}

fn secrets(response: &DiscoveryResponse) -> Vec<(String, String)> {
    assert_eq!(response.type_url, istio_api::sds::SECRET);
    response.resources.iter().map(secret).collect()
}

fn named(name: &str, content: &str) -> Vec<(String, String)> {
    vec![(name.to_owned(), content.to_owned())]
}

#[tokio::test]
async fn rotation_is_pushed_to_those_who_asked_for_what_changed() {
    let mut served = served().await;
    let mut certificate = served.stream(&["default"]).await;
    let mut roots = served.stream(&["ROOTCA"]).await;
    let first = served.rotate();
    assert_eq!(
        secrets(&certificate.next().await),
        named("default", first.key.expose_pem())
    );
    assert_eq!(secrets(&roots.next().await), named("ROOTCA", &first.roots_pem));
    let second = served.rotate();
    assert_eq!(
        secrets(&certificate.next().await),
        named("default", second.key.expose_pem())
    );
    served.ca = Ca::new("rotated");
    let third = served.rotate();
    let response = roots.next().await;
    assert_eq!(secrets(&response), named("ROOTCA", &third.roots_pem));
    assert_eq!(response.nonce, "2", "the second certificate had the same roots");
}

#[tokio::test]
async fn unknown_name_breaks_nothing() {
    let mut served = served().await;
    let first = served.rotate();
    let mut stream = served.stream(&["kubernetes://gateway", "file-root:/none"]).await;
    stream.ask(request(&["kubernetes://gateway", "default"])).await;
    assert_eq!(secrets(&stream.next().await), named("default", first.key.expose_pem()));
    let second = served.rotate();
    assert_eq!(secrets(&stream.next().await), named("default", second.key.expose_pem()));
}

#[tokio::test]
async fn ack_and_nack_are_not_answered() {
    let mut served = served().await;
    served.rotate();
    let mut stream = served.stream(&["default"]).await;
    let nonce = stream.next().await.nonce;
    for error_detail in [None, Some(istio_api::rpc::Status::default())] {
        stream
            .ask(DiscoveryRequest {
                response_nonce: nonce.clone(),
                error_detail,
                ..request(&["default"])
            })
            .await;
    }
    // A name that is added is answered after both.
    stream.ask(request(&["default", "ROOTCA"])).await;
    let response = stream.next().await;
    assert_eq!(
        (response.nonce.as_str(), secrets(&response)[0].0.as_str()),
        ("2", "ROOTCA")
    );
    let next = served.rotate();
    assert_eq!(secrets(&stream.next().await), named("default", next.key.expose_pem()));
}

#[tokio::test]
async fn delta_streams_are_served_too() {
    let mut served = served().await;
    let first = served.rotate();
    let ask = |more: &[&str], less: &[&str]| DeltaDiscoveryRequest {
        resource_names_subscribe: more.iter().map(|name| (*name).to_owned()).collect(),
        resource_names_unsubscribe: less.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    let (requests, receiver) = mpsc::channel(9);
    requests.send(ask(&["default"], &[])).await.unwrap();
    let responses = served
        .client
        .delta_secrets(ReceiverStream::new(receiver))
        .await
        .unwrap();
    let mut stream = Conversation {
        requests,
        responses: responses.into_inner(),
    };
    let taken = |response: &DeltaDiscoveryResponse| {
        let [resource] = response.resources.as_slice() else {
            panic!("one resource is due")
        };
        let found = secret(resource.resource.as_ref().unwrap());
        assert_eq!(resource.name, found.0);
        vec![found]
    };
    assert_eq!(taken(&stream.next().await), named("default", first.key.expose_pem()));
    // Asked for again, it is sent again.
    stream.ask(ask(&["default"], &[])).await;
    assert_eq!(taken(&stream.next().await), named("default", first.key.expose_pem()));
    stream.ask(ask(&["ROOTCA"], &["default"])).await;
    assert_eq!(taken(&stream.next().await), named("ROOTCA", &first.roots_pem));
    served.rotate();
    served.ca = Ca::new("rotated");
    let third = served.rotate();
    assert_eq!(taken(&stream.next().await), named("ROOTCA", &third.roots_pem));
}

#[tokio::test]
async fn file_that_goes_bad_leaves_the_last_good_secret() {
    let mut served = served().await;
    let host = Host::new(served.root.path(), System);
    let (first, second) = (served.rotate(), served.rotate());
    let put = |path: &str, text: &str| host.write(path.as_ref(), text, 0o600, None).unwrap();
    put("/chain.pem", &first.chain_pem);
    put("/key.pem", first.key.expose_pem());
    let name = "file-cert:/chain.pem~/key.pem";
    let mut stream = served.stream(&[name]).await;
    assert_eq!(secrets(&stream.next().await), named(name, first.key.expose_pem()));
    // Half of a rotation: the new chain with the old key. Any request makes the files be looked at.
    put("/chain.pem", &second.chain_pem);
    stream.ask(request(&[name])).await;
    put("/key.pem", second.key.expose_pem());
    stream.ask(request(&[name])).await;
    let response = stream.next().await;
    assert_eq!(
        (response.nonce.as_str(), secrets(&response)),
        ("2", named(name, second.key.expose_pem()))
    );
}

#[tokio::test]
async fn socket_is_private_and_fetching_is_not_served() {
    let mut served = served().await;
    let meta = std::fs::metadata(served.root.path().join("sds.sock")).unwrap();
    assert_eq!(meta.mode() & 0o777, 0o660);
    let refused = served
        .client
        .fetch_secrets(DiscoveryRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
}

/// Spellings of one file, and streams, without end.
#[tokio::test]
async fn greedy_envoy_has_a_bounded_share() {
    let mut served = served().await;
    let host = Host::new(served.root.path(), System);
    let first = served.rotate();
    host.write("/roots.pem".as_ref(), &first.roots_pem, 0o600, None)
        .unwrap();
    let spellings = (1..300).map(|length| format!("file-root:{}roots.pem", "/".repeat(length)));
    let spellings: Vec<String> = spellings.collect();
    let names: Vec<&str> = spellings.iter().map(String::as_str).collect();
    let mut greedy = served.stream(&names).await;
    assert_eq!(secrets(&greedy.next().await).len(), exchange::MAX_NAMES);
    assert_eq!(served.refused("SDS names"), 1);

    let mut open = Vec::new();
    let refused = loop {
        let (requests, receiver) = mpsc::channel::<DiscoveryRequest>(1);
        match served.client.stream_secrets(ReceiverStream::new(receiver)).await {
            Ok(responses) => open.push((requests, responses)),
            Err(status) => break status,
        }
        assert!(open.len() < MAX_STREAMS, "more streams are served than Envoy needs");
    };
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    assert_eq!(served.refused("SDS streams"), 1);
    drop(open);
    let served_again = async {
        while served.client.stream_secrets(tokio_stream::empty()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, served_again).await.unwrap();
}

/// Large secrets on streams that nobody reads: no more of them are in memory than there are turns.
#[tokio::test]
async fn responses_that_nobody_takes_are_few() {
    let turns = Arc::new(Semaphore::new(2));
    let (sender, mut responses) = Responses::<u8>::new();
    let turn = || Arc::clone(&turns).try_acquire_owned();
    sender.send((1, turn().unwrap())).await.unwrap();
    assert_eq!(turns.available_permits(), 1);
    assert_eq!(responses.next().await.unwrap().unwrap(), 1);
    assert_eq!(turns.available_permits(), 1, "it may still be on its way to Envoy");
    sender.send((2, turn().unwrap())).await.unwrap();
    assert!(turn().is_err());
    assert_eq!(responses.next().await.unwrap().unwrap(), 2);
    assert_eq!(turns.available_permits(), 1);
    drop(responses);
    assert_eq!(turns.available_permits(), 2);
}
