use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{EnvoyConfig, PathsConfig};
use crate::docker::fake::{Container, Docker};
use crate::host::{Host, System};
use crate::supervise::Scope;
use crate::web::fixtures::acceptor;

/// A program as far as anybody looks, and its SHA-256.
const PROGRAM: &[u8] = b"\x7fELF of a kind";
const SHA256: &str = "8e4a2ba0e664ef1b2aba35d4f07c1689e3a095684099c0e344a126f5e67635a8";
const CA_FILE: &str = "/ca.pem";
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

struct Vm {
    _root: tempfile::TempDir,
    options: Options,
}

impl Vm {
    fn new(config: EnvoyConfig) -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = Options {
            host: Host::new(root.path(), System),
            config,
            paths: PathsConfig::default(),
            unit: None,
            published: Vec::new(),
        };
        Self { _root: root, options }
    }

    fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.options.host.real_path(&self.options.paths.envoys()));
        let entries = entries.into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// An agent that only provides.
struct Providing {
    program: watch::Receiver<Option<PathBuf>>,
    state: watch::Receiver<EnvoyState>,
    problem: watch::Receiver<Option<String>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Providing {
    fn of(vm: &Vm) -> Self {
        let (scope, stop) = Scope::detached();
        let program = watch::Sender::new(None);
        let outputs = Outputs {
            state: watch::Sender::default(),
            problem: watch::Sender::new(None),
        };
        let options = vm.options.clone();
        let (seen_program, state, problem) = (
            program.subscribe(),
            outputs.state.subscribe(),
            outputs.problem.subscribe(),
        );
        scope.spawn(async move { match provide(&options, &program, &outputs).await {} });
        Self {
            program: seen_program,
            state,
            problem,
            _stop: stop.drop_guard(),
        }
    }

    async fn program(&mut self) -> PathBuf {
        let found = timeout(Duration::from_secs(3600), self.program.wait_for(Option::is_some));
        let found = found
            .await
            .unwrap_or_else(|_| panic!("stayed {:?}", self.state.borrow()));
        found.unwrap().clone().unwrap()
    }

    async fn says(&mut self, text: &str) {
        let said = self.state.wait_for(|state| format!("{state:?}").contains(text));
        let said = timeout(Duration::from_secs(3600), said).await.map(drop);
        said.unwrap_or_else(|_| panic!("never said {text:?}, but {:?}", self.state.borrow()));
    }
}

/// What an HTTPS server sends, whatever it is asked: head and body as they are; then it ends the connection or,
/// without a body, waits for ever.
#[derive(Clone)]
struct Answer(String, Option<Vec<u8>>);

fn ok(length: usize, body: &[u8]) -> Answer {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    Answer(head, Some(body.to_vec()))
}

fn to(url: &str) -> Answer {
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n");
    Answer(head, Some(Vec::new()))
}

/// A server that gives each of its answers once, and the last one for ever.
struct Server {
    url: String,
    root_pem: String,
    asked: Arc<Mutex<usize>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Server {
    async fn of(answers: impl IntoIterator<Item = Answer>) -> Self {
        let (acceptor, root_pem) = acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/envoy", listener.local_addr().unwrap());
        let (scope, stop): (Scope, CancellationToken) = Scope::detached();
        let asked = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&asked);
        let mut answers: VecDeque<Answer> = answers.into_iter().collect();
        scope.clone().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Paused time would not wait for Nagle's algorithm.
                stream.set_nodelay(true).unwrap();
                *counter.lock().unwrap() += 1;
                let answer = if answers.len() > 1 {
                    answers.pop_front()
                } else {
                    answers.front().cloned()
                };
                let acceptor = acceptor.clone();
                scope.spawn(async move {
                    let _ = serve(acceptor.accept(stream).await, answer.unwrap()).await;
                });
            }
        });
        Self {
            url,
            root_pem,
            asked,
            _stop: stop.drop_guard(),
        }
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    fn vm(&self, sha256: &str) -> Vm {
        let vm = Vm::new(EnvoyConfig {
            url: Some(self.url.clone()),
            sha256: Some(sha256.to_owned()),
            ca_file: Some(CA_FILE.into()),
            ..EnvoyConfig::default()
        });
        let host = &vm.options.host;
        host.write(Path::new(CA_FILE), &self.root_pem, 0o644, None).unwrap();
        vm
    }
}

async fn serve(
    stream: std::io::Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>,
    Answer(head, body): Answer,
) -> std::io::Result<()> {
    let (mut stream, mut request) = (stream?, Vec::new());
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let Some(body) = body else {
        return std::future::pending().await;
    };
    stream.write_all(&body).await?;
    stream.shutdown().await
}

#[tokio::test(start_paused = true)]
async fn a_download_is_made_once_and_kept() {
    let server = Server::of([ok(PROGRAM.len(), PROGRAM)]).await;
    let vm = server.vm(SHA256);
    assert!(matches!(locate(&vm.options), Located::ToFetch(_)));
    let path = Providing::of(&vm).program().await;
    assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o755);
    assert_eq!(vm.kept(), [SHA256]);
    drop(server);
    assert_eq!(Providing::of(&vm).program().await, path);
    assert_eq!(locate(&vm.options), Located::Here(path));
}

#[tokio::test(start_paused = true)]
async fn what_is_kept_is_judged_at_every_start() {
    let server = Server::of([ok(PROGRAM.len(), PROGRAM)]).await;
    let vm = server.vm(SHA256);
    let path = Providing::of(&vm).program().await;
    std::fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .write_all(b"!")
        .unwrap();
    assert!(matches!(locate(&vm.options), Located::ToFetch(_)));
    assert_eq!(std::fs::read(Providing::of(&vm).program().await).unwrap(), PROGRAM);
    assert_eq!(server.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_is_told_and_tried_again() {
    let page = b"<html>not found</html>";
    let missing = Answer(
        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        Some(Vec::new()),
    );
    let cases = [
        (
            ok(PROGRAM.len(), b"\x7fELF of a find"),
            "it is not what envoy.sha256 pins: its SHA-256 is",
        ),
        (
            ok(PROGRAM.len() + 1, PROGRAM),
            "end of file before message length reached",
        ),
        (ok(2 << 30, PROGRAM), "it is longer than 1073741824 bytes"),
        (ok(page.len(), page), "it is not what envoy.sha256 pins"),
        (missing, "404 Not Found"),
        (Answer(String::new(), None), "no answer within 30s"),
        (
            Answer(
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", PROGRAM.len()),
                None,
            ),
            "nothing more came within 30s",
        ),
        (to("http://127.0.0.1:1/envoy"), "URL scheme is not allowed"),
        (Answer("nonsense\r\n\r\n".to_owned(), Some(Vec::new())), "HTTP"),
    ];
    for (bad, wanted) in cases {
        let server = Server::of([bad, ok(PROGRAM.len(), PROGRAM)]).await;
        let vm = server.vm(SHA256);
        let mut providing = Providing::of(&vm);
        providing.says(wanted).await;
        providing.says("tried again in").await;
        assert_eq!(vm.kept(), Vec::<String>::new(), "{wanted}");
        assert!(providing.program.borrow().is_none());
        providing.program().await;
        assert_eq!((vm.kept(), server.asked()), (vec![SHA256.to_owned()], 2), "{wanted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_is_followed_and_a_circle_is_not() {
    let target = Server::of([ok(PROGRAM.len(), PROGRAM)]).await;
    // One certificate authority is enough: the server sends on to itself.
    let server = Server::of([to("/elsewhere"), ok(PROGRAM.len(), PROGRAM)]).await;
    Providing::of(&server.vm(SHA256)).program().await;
    assert_eq!(server.asked(), 2);
    let circle = Server::of([to("/envoy")]).await;
    Providing::of(&circle.vm(SHA256)).says("too many redirects").await;
    // Nor is a server trusted that the given authority didn't sign.
    let stranger = Server::of([to(&target.url)]).await;
    Providing::of(&stranger.vm(SHA256))
        .says("don't vouch for its certificate")
        .await;
    assert_eq!(target.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_longer_body_than_announced_is_bounded() {
    let chunk = vec![7; 1 << 10];
    let body: Vec<u8> = std::iter::repeat_n([b"400\r\n", &chunk[..], b"\r\n"].concat(), 8)
        .flatten()
        .collect();
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    let server = Server::of([Answer(head, Some(body))]).await;
    let vm = server.vm(SHA256);
    let mut short = vm.options.host.stage(Path::new("/f"), 5000).unwrap();
    let error = download::save(&vm.options.host, &server.url, Some(Path::new(CA_FILE)), &mut short)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "it is longer than 5000 bytes");
}

#[tokio::test(start_paused = true)]
async fn the_one_before_serves_until_the_new_one_is_here_and_is_removed_then() {
    let server = Server::of([ok(PROGRAM.len(), PROGRAM)]).await;
    let mut vm = server.vm(SHA256);
    let old = Providing::of(&vm).program().await;
    let hang = Server::of([Answer(String::new(), None)]).await;
    vm.options.config.url = Some(hang.url.clone());
    vm.options.config.sha256 = Some(OTHER.to_owned());
    let mut providing = Providing::of(&vm);
    assert_eq!(providing.program().await, old);
    assert_eq!(*providing.state.borrow(), EnvoyState::Waiting);
    let told = providing.problem.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(told, Some(format!("fetching envoy.url {}", hang.url)));
    drop(providing);
    // The old one serves: it is not the configured one, so nothing is removed yet.
    forget_others(&vm.options, &old);
    assert!(vm.kept().contains(&SHA256.to_owned()));

    vm.options.config = EnvoyConfig {
        binary: Some("/usr/bin/envoy".into()),
        ..EnvoyConfig::default()
    };
    assert_eq!(Providing::of(&vm).program().await, PathBuf::from("/usr/bin/envoy"));
    forget_others(&vm.options, &"/usr/bin/envoy".into());
    assert_eq!(vm.kept(), Vec::<String>::new());
    assert!(!vm.options.host.real_path(&vm.options.paths.envoys()).exists());
}

fn of_image(docker: &Docker) -> (Vm, String) {
    let reference = format!("registry.example/istio/proxyv2@sha256:{OTHER}");
    let vm = Vm::new(EnvoyConfig {
        image: Some(reference.clone()),
        docker_socket: docker.socket().to_string_lossy().into_owned(),
        ..EnvoyConfig::default()
    });
    (vm, reference)
}

fn archive(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append_data(&mut header, "envoy", content).unwrap();
    tar.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_image_gives_its_envoy_and_leaves_nothing_in_docker() {
    let docker = Docker::started();
    let (vm, reference) = of_image(&docker);
    docker.edit(|engine| engine.archive = Some(archive(PROGRAM)));
    let path = Providing::of(&vm).program().await;
    assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
    assert!(path.ends_with(format!("{OTHER}/envoy")), "{path:?}");
    let calls = [
        format!("pull {reference} "),
        "create istio-vm-agent-copy".to_owned(),
        "archive istio-vm-agent-copy /usr/local/bin/envoy".to_owned(),
        "remove istio-vm-agent-copy".to_owned(),
        format!("rmi {reference}"),
    ];
    assert_eq!(docker.calls(), calls);
    // No Docker is needed from now on.
    drop(docker);
    assert_eq!(Providing::of(&vm).program().await, path);
}

fn leftover() -> Container {
    Container {
        id: "1".to_owned(),
        name: "istio-vm-agent-copy".to_owned(),
        labels: Default::default(),
        running: false,
        status: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_here_stays_and_a_leftover_of_a_crash_goes() {
    let docker = Docker::started();
    let (vm, reference) = of_image(&docker);
    docker.edit(|engine| {
        engine.archive = Some(archive(PROGRAM));
        engine.images.insert(reference.clone());
        engine.containers.push(leftover());
    });
    Providing::of(&vm).program().await;
    let left = docker.edit(|engine| (engine.images.len(), engine.containers.len()));
    assert_eq!(
        (left, docker.calls()[0].as_str()),
        ((1, 0), "remove istio-vm-agent-copy")
    );
}

#[tokio::test(start_paused = true)]
async fn what_docker_can_t_do_is_told_and_tried_again() {
    let mut docker = Docker::stopped();
    let (vm, _) = of_image(&docker);
    let mut providing = Providing::of(&vm);
    providing.says("check that docker.service runs").await;
    docker.edit(|engine| engine.pull_error = Some("manifest unknown".to_owned()));
    docker.start();
    providing.says("check the tag or digest in envoy.image").await;
    docker.edit(|engine| engine.pull_error = None);
    providing.says("is it an image of Istio's proxyv2?").await;
    docker.edit(|engine| engine.archive = Some(archive(b"#!/bin/sh")));
    providing.says("`envoy` in the archive is no program").await;
    docker.edit(|engine| engine.archive = Some(archive(PROGRAM)));
    providing.program().await;
    assert_eq!(docker.edit(|engine| engine.containers.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_the_end_cuts_short_is_tidied_up() {
    let docker = Docker::started();
    let (vm, _) = of_image(&docker);
    docker.edit(|engine| engine.containers.push(leftover()));
    tidy(&vm.options).await;
    assert_eq!(docker.calls(), ["remove istio-vm-agent-copy"]);
}
