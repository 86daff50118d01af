//! root-cert.pem: certificates and nothing else.

use std::time::{Duration, SystemTime};

use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::x509::X509Version;

use super::cluster_env::BYTE_ORDER_MARK;
use super::origin::{ParseError, Position};
use crate::bounds::bounded_words;
use crate::web::unknown_critical;

/// Longest label of a PEM block that is repeated, in characters.
const LONGEST_LABEL: usize = 40;

/// End of a certificate and beginning of the next one, where a file without a last newline was prolonged by another.
const GLUED: &str = "-----END CERTIFICATE----------BEGIN ";
const PARTED: &str = "-----END CERTIFICATE-----\n-----BEGIN ";

/// The text with every certificate on lines of its own. Checks that every block is one, and that at least one has not
/// expired at `now`. Roots that have not begun yet are fine: a VM without a clock battery boots in the past.
pub(super) fn checked(text: &str, now: SystemTime) -> Result<String, ParseError> {
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let begins = |line: &str| usize::from(line.starts_with("-----BEGIN ")) + line.matches(GLUED).count();
    let lines: Vec<usize> = (1..)
        .zip(text.lines())
        .flat_map(|(number, line)| std::iter::repeat_n(number, begins(line)))
        .collect();
    let text = text.replace(GLUED, PARTED);
    if lines.is_empty() {
        return Err(ParseError::new(
            "has no certificate: the file is empty, truncated or not PEM; copy it again",
        ));
    }
    let mut expired = Vec::new();
    for (index, (line, block)) in lines.iter().zip(Pem::iter_from_buffer(text.as_bytes())).enumerate() {
        let at =
            |problem: String| ParseError::at(Position::Column(*line, 1), format!("block {}: {problem}", index + 1));
        let block = block.map_err(|_| at("is not whole PEM: the file is truncated; copy it again".to_owned()))?;
        if block.label != "CERTIFICATE" {
            return Err(at(format!(
                "is a {}: only certificates belong here, so take it out",
                bounded_words(&block.label, LONGEST_LABEL)
            )));
        }
        let certificate = block
            .parse_x509()
            .map_err(|_| at("is no X.509 certificate: copy the file again".to_owned()))?;
        check(&certificate).map_err(at)?;
        let end = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        if SystemTime::UNIX_EPOCH + Duration::from_secs(end) <= now {
            let when = certificate.validity().not_after;
            let problem = format!(
                "{} expired on {when}: check the VM's clock, or make a new bundle",
                certificate.subject()
            );
            tracing::warn!(line, "root-cert.pem: {problem}");
            expired.push(at(problem));
        }
    }
    match expired.pop() {
        Some(error) if expired.len() + 1 == lines.len() => Err(error),
        _ => Ok(text),
    }
}

/// The subjects of the certificates, and when each ends.
pub(super) fn subjects(text: &str) -> Vec<String> {
    let blocks = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
    let subject = |block: Pem| {
        let certificate = block.parse_x509().ok()?;
        Some(format!(
            "{}, until {}",
            certificate.subject(),
            certificate.validity().not_after
        ))
    };
    blocks.filter_map(subject).collect()
}

/// Checks that istiod's certificate can be verified with this one.
fn check(certificate: &X509Certificate<'_>) -> Result<(), String> {
    let subject = certificate.subject();
    let constraints = certificate.basic_constraints().ok().flatten();
    // A certificate of version 1 can't say whether it is a CA's.
    let is_authority = match constraints {
        Some(found) => found.value.ca,
        None => certificate.version() == X509Version::V1,
    };
    if !is_authority {
        return Err(format!(
            "{subject} is no certificate of a CA, and can vouch for nobody: put the one of the CA here that issued it"
        ));
    }
    match unknown_critical(certificate) {
        None => Ok(()),
        Some(extension) => Err(format!(
            "{subject} has the critical extension {extension}, which this agent can't judge by: have the CA issue it again \
             with that extension not critical, or without it, from the same key"
        )),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOT: &str = include_str!("../../tests/golden/vm-bundle/root-cert.pem");
    /// 2030-01-01; the root is valid until 2036.
    const NOW: Duration = Duration::from_secs(1_893_456_000);

    fn check_at(text: &str, since_epoch: Duration) -> Result<String, ParseError> {
        checked(text, SystemTime::UNIX_EPOCH + since_epoch)
    }

    #[test]
    fn roots_are_fine_at_any_time_before_their_end() {
        check_at(ROOT, NOW).unwrap();
        check_at(&format!("# old\n{ROOT}# new\n{ROOT}"), NOW).unwrap();
        assert_eq!(check_at(&format!("\u{feff}{ROOT}"), NOW).unwrap(), ROOT);
        check_at(ROOT, Duration::ZERO).unwrap();
    }

    #[test]
    fn roots_that_are_glued_together_are_as_many() {
        let root = ROOT.trim_end();
        let read = check_at(&format!("{root}{root}{root}"), NOW).unwrap();
        assert_eq!(Pem::iter_from_buffer(read.as_bytes()).filter(Result::is_ok).count(), 3);
        let error = check_at(&format!("{root}{}", ROOT.get(..400).unwrap()), NOW).unwrap_err();
        assert_eq!(error.line(), Some(19), "{error:?}");
    }

    #[test]
    fn block_that_is_no_certificate_is_named() {
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = ROOT.get(..400).unwrap();
        let cases = [
            (String::new(), None, "has no certificate"),
            ("junk".to_owned(), None, "has no certificate"),
            (cut.to_owned(), Some(1), "block 1: is not whole PEM"),
            (format!("{ROOT}{cut}"), Some(20), "block 2: is not whole PEM"),
            (format!("{ROOT}{key}"), Some(20), "block 2: is a PRIVATE KEY"),
            (format!("{ROOT}{junk}"), Some(20), "block 2: is no X.509"),
        ];
        for (text, line, wanted) in cases {
            let error = check_at(&text, NOW).unwrap_err();
            assert_eq!(error.line(), line, "{error:?}");
            assert!(error.problem.starts_with(wanted), "{error:?}");
        }
    }

    #[test]
    fn expired_root_is_named() {
        let error = check_at(ROOT, Duration::from_secs(2_200_000_000)).unwrap_err();
        assert!(error.problem.contains("O=cluster.local expired on Nov 18"), "{error:?}");
    }

    proptest! {
        #[test]
        fn root_certs_of_any_text_are_read_without_a_panic(text in "(-----BEGIN CERTIFICATE-----\n|-----END CERTIFICATE-----\n|[A-Za-z0-9+/=]{0,64}\n){0,8}") {
            let _ = check_at(&text, NOW);
        }
    }
}
