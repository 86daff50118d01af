use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::facts::{PrivateKey, SpiffeId};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A certificate of 24 hours, and the moment it was given.
fn issued() -> (Credentials, SystemTime) {
    let at = UNIX_EPOCH + HOUR * 1000;
    let credentials = Credentials {
        spiffe_id: SpiffeId {
            trust_domain: "cluster.local".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
        },
        chain_pem: String::new(),
        key: PrivateKey::new(""),
        roots_pem: String::new(),
        not_before: at,
        not_after: at + HOUR * 24,
        serial: "0a".to_owned(),
        issued_with: None,
    };
    (credentials, at)
}

#[test]
fn vm_without_a_valid_certificate_does_not_serve() {
    let (held, at) = issued();
    let expired = refused("the token expired");
    let problem = Some(&expired);
    for (credentials, problem, now, part) in [
        (None, None, at, "no certificate yet: `istio-vm-agent check`"),
        (None, problem, at, "no certificate yet: the token expired"),
        (
            Some(&held),
            problem,
            at + HOUR * 24,
            "expired at 1970-02-12T16:00:00Z: the token expired",
        ),
        (Some(&held), None, at - HOUR, "set the VM's clock"),
    ] {
        let told = problems(credentials, problem, now);
        let (blocking, amiss) = told.texts();
        assert!(blocking[0].contains(part), "{part}: {blocking:?}");
        assert_eq!(amiss, [""; 0], "{part}");
    }
}

fn refused(text: &str) -> IdentityProblem {
    IdentityProblem {
        text: text.to_owned(),
        is_unreachable: false,
    }
}

#[test]
fn certificate_that_is_missing_for_want_of_a_ca_has_that_cause() {
    let code = |problem: &IdentityProblem| {
        let told = problems(None, Some(problem), SystemTime::UNIX_EPOCH).in_order();
        told.iter().map(|problem| problem.code).collect::<Vec<_>>()
    };
    let away = IdentityProblem {
        is_unreachable: true,
        ..refused("connection refused")
    };
    assert_eq!(code(&away), [Code::IstiodUnreachable]);
    assert_eq!(code(&refused("the token expired")), [Code::CertificateMissing]);
}

#[test]
fn late_renewal_is_told_while_the_certificate_serves() {
    let (held, at) = issued();
    let told = |problem, now| {
        let told = problems(Some(&held), problem, now);
        let (blocking, amiss) = told.texts();
        assert_eq!(blocking, [""; 0]);
        amiss.concat()
    };
    assert_eq!(told(None, at + HOUR), "");
    assert_eq!(told(None, at + HOUR * 17), "");
    let late = told(None, at + HOUR * 18);
    assert!(
        late.contains("expires at 1970-02-12T16:00:00Z and its renewal is late"),
        "{late}"
    );
    let mut dated_back = held.clone();
    dated_back.issued_with = Some(IssuedWith {
        by: "its certificate".to_owned(),
        at: at + HOUR * 20,
    });
    let told_of = |now| problems(Some(&dated_back), None, now);
    assert_eq!(told_of(at + HOUR * 22), Problems::default());
    assert_ne!(told_of(at + HOUR * 23), Problems::default());
    let refused = told(Some(&refused("istiod refused the token")), at + HOUR);
    assert!(
        refused.ends_with("is not renewed: istiod refused the token"),
        "{refused}"
    );
}

#[test]
fn certificate_is_told_with_its_remaining_time_and_its_credential() {
    let (mut held, at) = issued();
    held.issued_with = Some(IssuedWith {
        by: "its certificate".to_owned(),
        at,
    });
    let now = at + Duration::from_secs(90);
    let told = line(&IdentityState::from(&held), now);
    let parts = "until 1970-02-12T16:00:00Z (23h 58m left), renewal about 1970-02-12T04:00:00Z, serial 0a, given for its certificate 1m 30s ago";
    assert!(told.ends_with(parts), "{told}");
    assert!(line(&IdentityState::from(&held), at + HOUR * 25).contains("(EXPIRED)"));
}
