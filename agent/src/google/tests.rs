use std::sync::atomic::Ordering;

use axum::Router;
use axum::routing::get;
use kit::web::Server;

use super::fixtures::{MetadataServer, client};
use super::*;

#[tokio::test]
async fn attributes_are_those_of_the_level_asked_for() {
    let server = MetadataServer::start().await;
    server.set_instance("istio-vm-agent-namespace", "shop");
    server.set_project("ssh-keys", "…");
    let metadata = client(&server);
    let instance = metadata.instance_attributes().await.unwrap();
    assert_eq!(instance["istio-vm-agent-namespace"], "shop");
    assert_eq!(metadata.project_attributes().await.unwrap()["ssh-keys"], "…");
    assert_eq!(metadata.project().await.unwrap(), "shop");
    assert_eq!(metadata.zone().await.unwrap(), "europe-west1-b");
}

#[tokio::test]
async fn token_is_asked_for_again_only_shortly_before_it_expires_or_when_it_was_refused() {
    let server = MetadataServer::start().await;
    let metadata = client(&server);
    let token = async || metadata.access_token().await.unwrap().expose().to_owned();
    assert_eq!([token().await, token().await], ["token-1", "token-1"]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3360)).await;
    tokio::time::resume();
    assert_eq!(token().await, "token-2");
    metadata.forget_token();
    assert_eq!(token().await, "token-3");
}

#[tokio::test]
async fn missing_service_account_is_told_with_the_remedy() {
    let server = MetadataServer::start().await;
    server.no_service_account.store(true, Ordering::Relaxed);
    let error = format!("{:#}", client(&server).access_token().await.unwrap_err());
    assert!(
        error.starts_with("this VM has no service account: attach one"),
        "{error}"
    );
}

#[tokio::test]
async fn metadata_server_of_another_cloud_is_not_believed() {
    let other = Server::plain(Router::new().fallback(get(|| async { "{}" }))).await;
    let metadata = Metadata::at(&other.url).unwrap();
    let error = format!("{:#}", metadata.instance_attributes().await.unwrap_err());
    assert!(
        error.contains("is not Google's metadata server: it answers 200"),
        "{error}"
    );
}

#[tokio::test]
async fn metadata_server_that_does_not_answer_is_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let metadata = Metadata::at(&format!("http://127.0.0.1:{port}")).unwrap();
    let error = format!("{:#}", metadata.instance_attributes().await.unwrap_err());
    assert!(
        error.starts_with("failed to ask the metadata server: is this VM on Google"),
        "{error}"
    );
}

#[test]
fn firmware_says_where_the_vm_is() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), crate::host::System);
    assert!(!is_google(&host));
    for (name, expected) in [("Google Compute Engine\n", true), ("Google\n", true), ("KVM\n", false)] {
        std::fs::create_dir_all(root.path().join("sys/class/dmi/id")).unwrap();
        host.write(Path::new(PRODUCT_NAME), name, 0o644, None).unwrap();
        assert_eq!(is_google(&host), expected, "{name}");
    }
}
