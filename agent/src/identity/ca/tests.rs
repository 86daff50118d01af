mod stand_in;

use rcgen::KeyPair;

use super::*;
use crate::config::KeyKind;
use crate::control_plane::fixtures::{Ca, ISTIOD, id, issued_by};
use stand_in::{Behavior, mesh, selector};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn certificate_is_asked_for_with_the_token_and_the_next_one_with_the_first() {
    let mesh = mesh().await;
    let first = mesh.issue(None).await.unwrap();
    let second = mesh.issue(Some(&first)).await.unwrap();
    assert_ne!(first.key, second.key);
    assert_eq!(
        (&first.spiffe_id, &first.roots_pem),
        (
            &id(),
            &certificate::merge(&mesh.ca.root_pem(), &mesh.ca.root_pem()).unwrap()
        )
    );
    let by = |credentials: &Credentials| credentials.issued_with.as_ref().unwrap().by.clone();
    let file = mesh.membership.token_file.as_ref().unwrap().display();
    assert_eq!(by(&first), format!("a token from {file}"));
    assert_eq!(by(&second), "its certificate");
    let seen = mesh.seen();
    assert_eq!(seen[0].authorization, Some(format!("Bearer {}", mesh.token)));
    assert_eq!((seen[0].certificate, seen[1].certificate), (false, true));
    assert_eq!(
        seen[1].authorization, None,
        "the token stays at home while the certificate is valid"
    );
    assert_eq!(
        (seen[0].cluster.as_deref(), seen[0].seconds),
        (Some("Kubernetes"), 24 * 3600)
    );
    let empty = value::Kind::StringValue(String::new());
    assert_eq!(seen[0].signer, Some(Value { kind: Some(empty) }));
    assert!(!seen[0].csr.contains("PRIVATE"));
}

#[tokio::test]
async fn rsa_keys_are_certified_too() {
    let mesh = mesh().await;
    let credentials = mesh.issue_of(KeyKind::Rsa2048, None).await.unwrap();
    mesh.issue(Some(&credentials)).await.unwrap();
    assert!(mesh.seen()[1].certificate);
}

#[tokio::test]
async fn certificate_that_is_refused_gives_way_to_the_token() {
    let mesh = mesh().await;
    let first = mesh.issue(None).await.unwrap();
    mesh.behave(Behavior::RefuseCertificates);
    mesh.issue(Some(&first)).await.unwrap();
    let shown: Vec<bool> = mesh.seen().iter().map(|seen| seen.certificate).collect();
    assert_eq!(shown, [false, true, false]);
    // One that TLS itself refuses: signed by a root that istiod doesn't know.
    let now = SystemTime::now();
    let stranger = issued_by(&Ca::new("forgotten"), now - HOUR, now + HOUR);
    mesh.issue(Some(&stranger)).await.unwrap();
    assert!(!mesh.seen()[3].certificate);
}

#[tokio::test]
async fn certificate_that_has_expired_is_not_shown() {
    let mesh = mesh().await;
    let now = SystemTime::now();
    let expired = issued_by(&mesh.ca, now - 2 * HOUR, now - HOUR);
    mesh.issue(Some(&expired)).await.unwrap();
    assert!(!mesh.seen()[0].certificate && mesh.seen()[0].authorization.is_some());
}

#[tokio::test]
async fn roots_of_the_ca_and_of_the_bundle_are_both_trusted() {
    let mesh = mesh().await;
    let next = Ca::new("next").root_pem();
    mesh.behave(Behavior::Roots(format!("{next}{}", mesh.ca.root_pem())));
    let credentials = mesh.issue(None).await.unwrap();
    assert_eq!(
        credentials.roots_pem,
        certificate::merge(&next, &mesh.ca.root_pem()).unwrap()
    );
    mesh.behave(Behavior::Roots(next.clone()));
    let credentials = mesh.issue(None).await.unwrap();
    assert!(certificate::contains(&credentials.roots_pem, &mesh.ca.root_pem()));
}

#[tokio::test]
async fn answer_that_does_not_fit_is_refused_with_the_reason() {
    let mesh = mesh().await;
    let (now, root) = (SystemTime::now(), mesh.ca.root_pem());
    let cases = [
        (
            Behavior::Say(vec![]),
            "0 certificates, at least a leaf and its root are due",
        ),
        (Behavior::Say(vec![root.clone()]), "1 certificates, at least"),
        (
            Behavior::Say(vec![root.clone(), root.clone()]),
            "the certificate is not of this private key",
        ),
        (
            Behavior::Say(vec![root, "x".to_owned()]),
            "the root certificates are unusable",
        ),
        (
            Behavior::Say(vec!["x".repeat(1 << 20), "y".to_owned()]),
            "1048577 bytes of certificates",
        ),
        (
            Behavior::SignKey(KeyPair::generate().unwrap()),
            "not of this private key",
        ),
        (
            Behavior::SignAs("spiffe://cluster.local/ns/shop/sa/web"),
            "is for spiffe://cluster.local/ns/shop/sa/web, this VM is",
        ),
        (Behavior::SignFor(now + HOUR, now + 2 * HOUR), "this VM's clock says"),
        (Behavior::SignFor(now - 2 * HOUR, now - HOUR), "set the clock"),
    ];
    for (behavior, expected) in cases {
        let error = mesh.refused(behavior).await;
        let place = format!("the CA at {} gave an unusable answer: ", mesh.membership.ca_address);
        assert!(error.starts_with(&place) && error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn refusal_names_the_cause_and_never_the_token() {
    let mesh = mesh().await;
    let cases = [
        (
            Status::unauthenticated("no"),
            "istio-token expired at 1970-01-01T00:00:01Z",
        ),
        (
            Status::permission_denied("no"),
            "won't let it be spiffe://cluster.local/ns/shop/sa/catalog",
        ),
        (Status::unimplemented("unknown service"), "in CA_ADDR of cluster.env"),
        (
            Status::resource_exhausted("slow down"),
            "istiod limits its rate (ResourceExhausted: slow down)",
        ),
    ];
    for (status, expected) in cases {
        let error = mesh.refused(Behavior::Refuse(status)).await;
        assert!(error.contains(expected) && error.contains(ISTIOD), "{error}");
        assert!(!error.contains(&mesh.token), "{error}");
    }
}

#[tokio::test]
async fn ca_that_hangs_is_given_up() {
    let mesh = mesh().await;
    mesh.behave(Behavior::Hang);
    let call = mesh.issue(None);
    tokio::pin!(call);
    // Time runs until the call is there; from then on it is tokio's, so that the deadline costs the test nothing.
    while mesh.seen().is_empty() {
        tokio::select! {
            biased;
            _ = &mut call => panic!("ended before it was asked"),
            () = tokio::task::yield_now() => {}
        }
    }
    tokio::time::pause();
    let error = tokio::time::timeout(HOUR, call).await.unwrap().unwrap_err();
    assert!(
        format!("{error:#}").contains("istiod took the call and gave no answer in time"),
        "{error:#}"
    );
}

#[tokio::test]
async fn ca_that_is_not_there_is_named() {
    let mut mesh = mesh().await;
    mesh.membership.ca_address = format!("{ISTIOD}:1");
    let error = format!("{:#}", mesh.issue(None).await.unwrap_err());
    assert!(
        error.starts_with(&format!(
            "failed to connect to istiod at {ISTIOD}:1 (127.0.0.1): nothing listens"
        )),
        "{error}"
    );
}

#[tokio::test]
async fn ca_is_the_current_control_planes() {
    let mut mesh = mesh().await;
    let (away, here) = (format!("{ISTIOD}:1"), mesh.membership.ca_address.clone());
    mesh.selector = selector([&away, &here]);
    mesh.issue(None).await.unwrap();
    assert_eq!(mesh.selector.current(), here, "streams go where certificates come from");
    let reason = mesh.selector.facts().reason.unwrap();
    assert!(reason.contains("nothing listens there"), "{reason}");
    // What it refuses, others would refuse as well.
    let error = mesh.refused(Behavior::Refuse(Status::permission_denied("no"))).await;
    assert!(error.contains("won't let it be"), "{error}");
    assert_eq!(mesh.selector.current(), here);

    mesh.behave(Behavior::Refuse(Status::unavailable("starting")));
    let error = format!("{:#}", mesh.issue(None).await.unwrap_err());
    assert!(
        error.contains("starting") && error.contains("nothing listens there"),
        "{error}"
    );

    // A CA of its own has nothing to do with it.
    mesh.membership.discovery_address = away;
    mesh.behave(Behavior::Sign);
    mesh.issue(None).await.unwrap();
}
