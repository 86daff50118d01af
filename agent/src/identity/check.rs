//! Questions of `check` about the VM's identity: the life that its certificates are to have, and the roots of the mesh.

use std::time::{Duration, SystemTime};

use x509_parser::pem::Pem;

use crate::facts::date;
use crate::part::{CheckContext, Finding, Question, Subject, rounded};

const LIFE: Subject = Subject::new("IVA403", "certificate life");
const ROOTS: Subject = Subject::new("IVA404", "root certificates");
/// MAX_WORKLOAD_CERT_TTL of an istiod that nobody told another one (istio/security/pkg/cmd).
const MOST_BY_DEFAULT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// A root that ends sooner is worth a word: its successor has to be with every workload before.
const SHORT_ROOT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn questions(context: &CheckContext) -> Vec<Question> {
    let ttl = context.site.config.identity.ttl;
    vec![
        Question::new(LIFE, async move { [life(ttl)] }),
        Question::look_of_member(ROOTS, context, |_, membership| {
            [roots(&membership.roots_pem, SystemTime::now())]
        }),
    ]
}

/// The finding about a life that most CAs refuse.
fn life(ttl: Duration) -> Finding {
    match ttl > MOST_BY_DEFAULT {
        true => LIFE.warning(
            "identity.ttl is more than 90 days, which istiod refuses unless its MAX_WORKLOAD_CERT_TTL is raised",
            "write less, such as identity.ttl = \"24h\"",
        ),
        false => LIFE.ok(format!("{}, renewed at half of it", rounded(ttl))),
    }
}

/// Roots that end soon. That all are of a CA, and not all have expired, is a matter of the join.
fn roots(pem: &str, now: SystemTime) -> Finding {
    let fix = "have the mesh's CA take up a new root, and put it into root-cert.pem of the bundle beside the old one";
    let mut last = SystemTime::UNIX_EPOCH;
    for block in Pem::iter_from_buffer(pem.as_bytes()).flatten() {
        let Ok(certificate) = block.parse_x509() else { continue };
        let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        last = last.max(SystemTime::UNIX_EPOCH + Duration::from_secs(end));
    }
    match last.duration_since(now) {
        Ok(left) if left > SHORT_ROOT => ROOTS.ok(format!("good until {}", date(last))),
        Ok(left) => ROOTS.warning(
            format!("the last one ends in {}, at {}", rounded(left), date(last)),
            fix,
        ),
        Err(_) => ROOTS.failed(format!("the last one ended at {}", date(last)), fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::Ca;
    use crate::part::Level;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn life_longer_than_istiod_grants_is_named() {
        assert_eq!(life(90 * DAY).level, Level::Ok);
        let found = life(91 * DAY);
        assert!(found.detail.contains("MAX_WORKLOAD_CERT_TTL"), "{found:?}");
    }

    #[test]
    fn root_that_ends_soon_is_named() {
        let (ca, now) = (Ca::new("mesh"), SystemTime::now());
        assert_eq!(roots(&ca.root_pem(), now).level, Level::Ok);
        let pem = Pem::iter_from_buffer(ca.root_pem().as_bytes())
            .next()
            .unwrap()
            .unwrap()
            .contents;
        let (_, root) = x509_parser::parse_x509_certificate(&pem).unwrap();
        let end = u64::try_from(root.validity().not_after.timestamp()).unwrap();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(end);
        assert_eq!(roots(&ca.root_pem(), end - 29 * DAY).level, Level::Warning);
        assert_eq!(roots(&ca.root_pem(), end + DAY).level, Level::Failed);
    }
}
