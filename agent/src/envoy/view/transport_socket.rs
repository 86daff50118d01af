//! envoy.config.core.v3.TransportSocket, with envoy.extensions.transport_sockets.tls.v3.

use serde::{Deserialize, Serialize};

use super::StringMatch;

/// envoy.config.core.v3.TransportSocket, of TLS contexts either way.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TransportSocket {
    /// Name.
    pub name: String,
    /// The TLS context of either side.
    pub typed_config: TlsContext,
}

impl TransportSocket {
    /// True for TLS.
    pub fn is_tls(&self) -> bool {
        self.name == "envoy.transport_sockets.tls"
    }

    /// The names of which the peer's certificate must have one, in words; none where any will do.
    pub fn expected_names(&self) -> Vec<String> {
        let context = &self.typed_config.common_tls_context;
        let validation = &context.combined_validation_context.default_validation_context;
        let typed = validation.match_typed_subject_alt_names.iter().map(|it| &it.matcher);
        let names = validation.match_subject_alt_names.iter().chain(typed);
        names
            .filter_map(|name| {
                let prefix = name.prefix.as_ref().map(|prefix| format!("{prefix}*"));
                name.exact.clone().or(prefix)
            })
            .collect()
    }
}

/// UpstreamTlsContext or DownstreamTlsContext (envoy.extensions.transport_sockets.tls.v3).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TlsContext {
    /// Fields that both sides' contexts have.
    pub common_tls_context: CommonTlsContext,
    /// True where a caller must have a certificate.
    pub require_client_certificate: bool,
    /// The name that is called for.
    pub sni: String,
}

/// envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CommonTlsContext {
    /// Validation of the peer.
    pub combined_validation_context: CombinedValidationContext,
}

/// A validation context whose roots come by SDS.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CombinedValidationContext {
    /// The part that doesn't come by SDS.
    pub default_validation_context: ValidationContext,
}

/// envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ValidationContext {
    /// Names of the peer, of any type.
    pub match_subject_alt_names: Vec<StringMatch>,
    /// Names of the peer, each of a type.
    pub match_typed_subject_alt_names: Vec<TypedMatch>,
}

/// envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TypedMatch {
    /// The name.
    pub matcher: StringMatch,
}
