use std::pin::Pin;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use super::fixtures::{Ca, ISTIOD, Wire, WireState, issued_by, jwt, membership, server, server_of};
use super::token::{Token, TokenSource};
use super::*;
use crate::facts::Membership;
use crate::supervise::Scope;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn member_of(ca: &Ca) -> Membership {
    Membership {
        roots_pem: ca.root_pem(),
        ..membership()
    }
}

#[tokio::test]
async fn connect_goes_by_the_bundles_hosts_entry_and_has_the_name_proven() {
    let ((scope, _drain), ca, now) = (Scope::detached(), Ca::new("mesh"), SystemTime::now());
    let port = server(&scope, &ca, ISTIOD, now - DAY, now + DAY).await;
    // No resolver knows this name.
    let address = format!("{ISTIOD}:{port}");
    let connection = connect(&member_of(&ca), &address, None, now, DAY).await.unwrap();
    assert_eq!(connection.address, format!("{ISTIOD}:{port} (127.0.0.1)"));
}

#[tokio::test]
async fn connect_failure_names_its_cause_and_the_remedy() {
    let ((scope, _drain), ca, now) = (Scope::detached(), Ca::new("mesh"), SystemTime::now());
    let other = Ca::new("another mesh");
    let cases = [
        (
            server(&scope, &ca, "other.example", now - DAY, now + DAY).await,
            "is not for \"istiod.istio-system.svc\"",
        ),
        (
            server(&scope, &ca, ISTIOD, now + DAY, now + 2 * DAY).await,
            "is not valid yet (",
        ),
        (
            server(&scope, &ca, ISTIOD, now - 2 * DAY, now - DAY).await,
            "has expired (",
        ),
        (
            server(&scope, &other, ISTIOD, now - DAY, now + DAY).await,
            "fetch root-cert.pem of this mesh again",
        ),
        (1, "nothing listens there"),
    ];
    for (port, expected) in cases {
        let error = connect(&member_of(&ca), &format!("{ISTIOD}:{port}"), None, now, DAY)
            .await
            .unwrap_err();
        let error = format!("{error:#}");
        let place = format!("failed to connect to istiod at {ISTIOD}:{port} (127.0.0.1): ");
        assert!(error.starts_with(&place) && error.contains(expected), "{error}");
        // No layer repeats the one below it.
        let parts: Vec<&str> = error.split(": ").collect();
        let mut seen = parts.clone();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(parts.len(), seen.len(), "{error}");
    }
    let nowhere = connect(&member_of(&ca), "no.such.invalid:1", None, now, DAY)
        .await
        .unwrap_err();
    assert!(
        format!("{nowhere:#}").starts_with("failed to resolve no.such.invalid: "),
        "{nowhere:#}"
    );
    let wrong = connect(&member_of(&ca), "istiod", None, now, DAY).await.unwrap_err();
    let wrong = wrong.to_string();
    assert!(wrong.starts_with("\"istiod\" is not host:port"), "{wrong}");
}

#[tokio::test]
async fn certificate_whose_critical_extension_is_unknown_is_named_with_it() {
    let ((scope, _drain), ca, now) = (Scope::detached(), Ca::new("mesh"), SystemTime::now());
    for (number, extension) in [
        (&[2, 5, 29, 32][..], "certificatePolicies (2.5.29.32)"),
        (&[2, 5, 29, 36], "policyConstraints (2.5.29.36)"),
        (&[1, 2, 3, 4], "1.2.3.4"),
    ] {
        let issuing = ca.issuing("issuing CA of the company", number);
        let mut serving = issuing.serving(&[ISTIOD], now - DAY, now + DAY);
        serving.certificate += &issuing.root_pem();
        let port = server_of(&scope, &ca, &serving).await;
        let error = connect(&member_of(&ca), &format!("{ISTIOD}:{port}"), None, now, DAY).await;
        let error = format!("{:#}", error.unwrap_err());
        let named =
            format!("CN=issuing CA of the company has the critical extension {extension}, which this agent can't");
        assert!(error.contains(&named), "{error}");
    }
}

#[tokio::test]
async fn connection_that_falls_silent_is_told_from_one_that_is_idle() {
    let ((scope, _drain), ca, now) = (Scope::detached(), Ca::new("mesh"), SystemTime::now());
    let port = server(&scope, &ca, ISTIOD, now - DAY, now + DAY).await;
    let wire = Wire::to(&scope, [127, 0, 0, 1].into(), port).await;
    let address = format!("{ISTIOD}:{}", wire.port);
    let connection = connect(&member_of(&ca), &address, None, now, DAY).await.unwrap();
    // It has no health service, and says so.
    connection.is_alive().await.unwrap();
    wire.state.send_replace(WireState::Silent);
    tokio::time::pause();
    let start = Instant::now();
    let error = connection.wait_dead().await.to_string();
    assert_eq!(
        error,
        format!("istiod at {address} (127.0.0.1) is silent: nothing came within 2s of a question")
    );
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test]
async fn roots_of_the_last_issue_outlive_its_certificate() {
    let ((scope, _drain), now) = (Scope::detached(), SystemTime::now());
    let (old, new) = (Ca::new("before the rotation"), Ca::new("after"));
    let port = server(&scope, &new, ISTIOD, now - DAY, now + DAY).await;
    let expired = issued_by(&new, now - 2 * DAY, now - DAY);
    let address = format!("{ISTIOD}:{port}");
    connect(&member_of(&old), &address, Some(&expired), now, DAY)
        .await
        .unwrap();
    connect(&member_of(&old), &address, None, now, DAY).await.unwrap_err();
}

#[tokio::test]
async fn token_goes_only_where_no_certificate_does_and_is_never_shown() {
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
        issued_by(&ca, now - DAY, now + DAY),
        issued_by(&ca, now - 2 * DAY, now - DAY),
    );
    for (credentials, sent) in [(None, true), (Some(&expired), true), (Some(&valid), false)] {
        let mut metadata = MetadataMap::new();
        let method = authorize(&mut metadata, &membership, credentials, None, now)
            .await
            .unwrap();
        assert_eq!(method != AuthMethod::Certificate, sent);
        assert_eq!(metadata.get("clusterid").unwrap(), "Kubernetes");
        let header = metadata
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header, sent.then(|| format!("Bearer {token}")));
        let shown = format!("{metadata:?} {method:?}");
        assert!(!shown.contains(&token), "{shown}");
    }
}

/// A source that is away.
#[derive(Debug)]
struct Away;

impl TokenSource for Away {
    fn place(&self) -> String {
        "the API server".to_owned()
    }

    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Token>> + Send + '_>> {
        Box::pin(async { Err(anyhow!("connection refused")) })
    }
}

#[tokio::test]
async fn token_file_stands_in_for_a_source_that_is_away() {
    let directory = tempfile::tempdir().unwrap();
    let host = crate::host::Host::new(directory.path(), crate::host::System);
    let token = jwt(r#"{"aud":"istio-ca"}"#);
    host.write("/istio-token".as_ref(), &token, 0o600, None).unwrap();
    let with_file = Membership {
        token_file: Some(directory.path().join("istio-token")),
        ..membership()
    };
    let (mut metadata, now) = (MetadataMap::new(), SystemTime::now());
    let method = authorize(&mut metadata, &with_file, None, Some(&Away), now)
        .await
        .unwrap();
    assert!(method.to_string().ends_with("/istio-token"), "{method}");
    let without = Membership {
        token_file: None,
        ..membership()
    };
    let error = authorize(&mut metadata, &without, None, Some(&Away), now)
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "connection refused");
}

#[tokio::test]
async fn missing_token_is_an_error_that_names_the_file() {
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
