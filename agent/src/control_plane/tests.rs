use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Server, ServerTlsConfig};

use super::fixtures::{Ca, ISTIOD, jwt, membership};
use super::*;
use crate::supervise::Scope;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A server for `name` at a port of 127.0.0.1, while the scope lives.
async fn istiod(scope: &Scope, ca: &Ca, name: &str, from: SystemTime, until: SystemTime) -> u16 {
    let (chain, key) = ca.serving(name, from, until);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(Identity::from_pem(chain, key)))
        .unwrap()
        .add_routes(Routes::default())
        .serve_with_incoming(TcpListenerStream::new(listener));
    scope.spawn(async move {
        let _ = server.await;
    });
    port
}

fn member_of(ca: &Ca) -> Membership {
    Membership {
        roots_pem: ca.root_pem(),
        ..membership()
    }
}

#[tokio::test]
async fn the_bundles_hosts_entry_wins_and_the_name_is_proven() {
    let ((scope, _drain), ca, now) = (Scope::detached(), Ca::new("mesh"), SystemTime::now());
    let port = istiod(&scope, &ca, ISTIOD, now - DAY, now + DAY).await;
    // No resolver knows this name.
    let address = format!("{ISTIOD}:{port}");
    let connection = connect(&member_of(&ca), &address, None, now).await.unwrap();
    assert_eq!(connection.address, format!("{ISTIOD}:{port} (127.0.0.1)"));
}

#[tokio::test]
async fn each_failure_names_its_cause_and_the_remedy() {
    let ((scope, _drain), ca, now) = (Scope::detached(), Ca::new("mesh"), SystemTime::now());
    let other = Ca::new("another mesh");
    let cases = [
        (
            istiod(&scope, &ca, "other.example", now - DAY, now + DAY).await,
            "is not for \"istiod.istio-system.svc\"",
        ),
        (
            istiod(&scope, &ca, ISTIOD, now + DAY, now + 2 * DAY).await,
            "not valid yet, and this VM's clock says",
        ),
        (
            istiod(&scope, &ca, ISTIOD, now - 2 * DAY, now - DAY).await,
            "has expired, and this VM's clock says",
        ),
        (
            istiod(&scope, &other, ISTIOD, now - DAY, now + DAY).await,
            "fetch root-cert.pem of this mesh again",
        ),
        (1, "nothing listens there"),
    ];
    for (port, expected) in cases {
        let error = connect(&member_of(&ca), &format!("{ISTIOD}:{port}"), None, now)
            .await
            .unwrap_err();
        let error = format!("{error:#}");
        let place = format!("failed to connect to istiod at {ISTIOD}:{port} (127.0.0.1): ");
        assert!(error.starts_with(&place) && error.contains(expected), "{error}");
    }
    let nowhere = connect(&member_of(&ca), "no.such.invalid:1", None, now)
        .await
        .unwrap_err();
    assert!(
        format!("{nowhere:#}").starts_with("failed to resolve no.such.invalid: "),
        "{nowhere:#}"
    );
    let wrong = connect(&member_of(&ca), "istiod", None, now).await.unwrap_err();
    assert_eq!(wrong.to_string(), "istiod is not host:port");
}

#[tokio::test]
async fn roots_of_the_last_issue_outlive_its_certificate() {
    let ((scope, _drain), now) = (Scope::detached(), SystemTime::now());
    let (old, new) = (Ca::new("before the rotation"), Ca::new("after"));
    let port = istiod(&scope, &new, ISTIOD, now - DAY, now + DAY).await;
    let expired = new.credentials(now - 2 * DAY, now - DAY);
    let address = format!("{ISTIOD}:{port}");
    connect(&member_of(&old), &address, Some(&expired), now).await.unwrap();
    connect(&member_of(&old), &address, None, now).await.unwrap_err();
}

#[tokio::test]
async fn the_token_goes_only_where_no_certificate_does_and_is_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (path, ca, now) = (directory.path().join("istio-token"), Ca::new("mesh"), SystemTime::now());
    let token = jwt(r#"{"aud":"istio-ca"}"#);
    let host = crate::host::Host::new(directory.path(), crate::host::System);
    host.write("/istio-token".as_ref(), &token, 0o600, None).unwrap();
    let membership = Membership {
        token_file: Some(path),
        ..membership()
    };
    let (valid, expired) = (
        ca.credentials(now - DAY, now + DAY),
        ca.credentials(now - 2 * DAY, now - DAY),
    );
    for (credentials, sent) in [(None, true), (Some(&expired), true), (Some(&valid), false)] {
        let mut metadata = MetadataMap::new();
        let proof = authorize(&mut metadata, &membership, credentials, None, now)
            .await
            .unwrap();
        assert_eq!(proof != Proof::Certificate, sent);
        assert_eq!(metadata.get("clusterid").unwrap(), "Kubernetes");
        let header = metadata
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header, sent.then(|| format!("Bearer {token}")));
        let shown = format!("{metadata:?} {proof:?}");
        assert!(!shown.contains(&token), "{shown}");
    }
}

#[tokio::test]
async fn a_missing_token_is_an_error_that_names_the_file() {
    let membership = Membership {
        token_file: Some("/no/istio-token".into()),
        ..membership()
    };
    let error = authorize(&mut MetadataMap::new(), &membership, None, None, SystemTime::now())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("failed to read the token /no/istio-token: put one there"),
        "{error}"
    );
}

#[test]
fn addresses_are_split_at_the_port() {
    assert_eq!(split("istiod:15012").unwrap(), ("istiod", 15012));
    assert_eq!(split("[::1]:15012").unwrap(), ("::1", 15012));
    for wrong in ["", "istiod", "istiod:", "istiod:x", "istiod:70000"] {
        assert!(split(wrong).is_err(), "{wrong}");
    }
}
