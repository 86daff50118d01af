//! The program out of a URL.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::super::{ASK_TIMEOUT, Located, answered, download, locate, remove_others};
use super::server::{Answer, Server, ok, to};
use super::{CA_FILE, OTHER, PROGRAM, Providing, SHA256};
use crate::config::EnvoyConfig;
use crate::facts::EnvoyState;

#[tokio::test(start_paused = true)]
async fn download_is_made_once_and_kept() {
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
async fn kept_program_is_judged_at_every_start() {
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
async fn program_that_never_serves_makes_way_for_the_one_that_was_kept_before() {
    let other = b"\x7fELF of another kind";
    let server = Server::of([ok(PROGRAM.len(), PROGRAM), ok(other.len(), other)]).await;
    let mut vm = server.vm(SHA256);
    let first = Providing::of(&vm).program().await;
    let host = &vm.options.host;
    host.write_bytes(Path::new("/other"), other, 0o600).unwrap();
    vm.options.config.sha256 = host.sha256(Path::new("/other")).unwrap();
    let mut providing = Providing::of(&vm);
    providing.becomes_another_than(&first).await;
    let second = providing.program().await;
    for _ in 0..3 {
        assert_eq!(providing.program().await, second);
        let reason = "Envoy ended".to_owned();
        providing.publish.send_replace(EnvoyState::Down { reason });
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    providing.becomes_another_than(&second).await;
    assert_eq!(providing.program().await, first);
    let problem = providing.problem.borrow().clone().unwrap();
    assert!(problem.ends_with("does not serve: Envoy ended"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn download_that_fails_is_told_and_tried_again() {
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
async fn download_follows_a_redirect_and_no_circle() {
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
async fn download_bounds_a_longer_body_than_announced() {
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
async fn earlier_program_serves_until_the_new_one_is_here_and_is_removed_then() {
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
    remove_others(&vm.options, &old);
    assert!(vm.kept().contains(&SHA256.to_owned()));

    vm.options.config = EnvoyConfig {
        binary: Some("/usr/bin/envoy".into()),
        ..EnvoyConfig::default()
    };
    assert_eq!(Providing::of(&vm).program().await, PathBuf::from("/usr/bin/envoy"));
    remove_others(&vm.options, &"/usr/bin/envoy".into());
    assert_eq!(vm.kept(), Vec::<String>::new());
    assert!(!vm.options.host.real_path(&vm.options.paths.envoys()).exists());
}

#[tokio::test(start_paused = true)]
async fn source_that_is_asked_and_never_done_with_its_answer_is_given_up() {
    let begun = tokio::time::Instant::now();
    let error = answered(std::future::pending::<anyhow::Result<()>>())
        .await
        .unwrap_err();
    assert_eq!(
        (begun.elapsed(), error.to_string()),
        (ASK_TIMEOUT, "no answer within 30s".to_owned())
    );
}
