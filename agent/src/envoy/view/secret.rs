//! envoy.admin.v3.SecretsConfigDump: which certificates Envoy has. Of keys nothing is read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most certificates of one secret that are read.
const MAX_CERTIFICATES: usize = 64;

/// Last second of the year 9999, the last that RFC 3339 can show.
const MAX_SECONDS: u64 = 253_402_300_799;

/// A secret that Envoy has, or waits for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Secret {
    /// Name; Istio's are `default` and `ROOTCA`.
    pub name: String,
    /// `ACTIVE` or `WARMING`.
    pub state: String,
    /// True for certificates that peers are judged by.
    pub is_ca: bool,
    /// The certificates, the leaf first.
    pub certificates: Vec<Certificate>,
}

/// A certificate.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Certificate {
    /// Serial number, hexadecimal.
    pub serial: String,
    /// Start of validity.
    #[serde(with = "humantime_serde")]
    pub not_before: SystemTime,
    /// End of validity.
    #[serde(with = "humantime_serde")]
    pub not_after: SystemTime,
}

impl Secret {
    /// Reads one item of a dump.
    pub fn of(item: &Value) -> Self {
        let text = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        let chain = item.pointer("/secret/tls_certificate/certificate_chain");
        let roots = item.pointer("/secret/validation_context/trusted_ca");
        let pem = chain.or(roots).and_then(bytes).unwrap_or_default();
        Self {
            name: text("name"),
            state: text("state"),
            is_ca: chain.is_none() && roots.is_some(),
            certificates: certificates(&pem),
        }
    }

    /// True where all of its certificates are valid at `now`, and it has one.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        let mut all = self.certificates.iter();
        !self.certificates.is_empty() && all.all(|it| it.not_before <= now && now < it.not_after)
    }
}

/// envoy.config.core.v3.DataSource.
fn bytes(source: &Value) -> Option<Vec<u8>> {
    let inline = source["inline_string"].as_str().map(|text| text.as_bytes().to_vec());
    inline.or_else(|| STANDARD.decode(source["inline_bytes"].as_str()?).ok())
}

fn certificates(pem: &[u8]) -> Vec<Certificate> {
    let all = CertificateDer::pem_slice_iter(pem).take(MAX_CERTIFICATES);
    let read = |der: CertificateDer<'_>| {
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        let validity = certificate.validity();
        Some(Certificate {
            serial: certificate.serial.to_str_radix(16),
            not_before: moment(validity.not_before.timestamp())?,
            not_after: moment(validity.not_after.timestamp())?,
        })
    };
    all.filter_map(|der| read(der.ok()?)).collect()
}

fn moment(seconds: i64) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= MAX_SECONDS)?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
