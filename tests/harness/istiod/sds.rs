//! Secrets for an Envoy that has no agent. No istiod has this; it lets a case try what is served on Envoy alone.

use std::pin::Pin;
use std::sync::Arc;

use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use istio_api::rpc::Any;
use istio_api::sds::secret_discovery_service_server::SecretDiscoveryService;
use istio_api::sds::{CertificateValidationContext, DataSource, SECRET, Secret, TlsCertificate, data_source, secret};
use prost::Message;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::state::State;

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub(super) struct Sds(pub(super) Arc<State>);

#[async_trait]
impl SecretDiscoveryService for Sds {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        _: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Err(Status::unimplemented("delta"))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        let (caller, _) = self.0.authenticate(&request)?;
        let credentials = self.0.pki.issue_for_workload(&caller.spiffe_id());
        let certificate = TlsCertificate {
            certificate_chain: Some(inline(credentials.certificate)),
            private_key: Some(inline(credentials.key)),
        };
        let roots = CertificateValidationContext {
            trusted_ca: Some(inline(self.0.root_pem())),
            crl: None,
        };
        let responses = request.into_inner().filter_map(move |request| {
            let request = request.ok().filter(|request| request.response_nonce.is_empty())?;
            let secrets = request.resource_names.into_iter().map(|name| {
                let kind = match name.as_str() {
                    "ROOTCA" => secret::Type::ValidationContext(roots.clone()),
                    _ => secret::Type::TlsCertificate(certificate.clone()),
                };
                let secret = Secret {
                    name,
                    r#type: Some(kind),
                };
                Any {
                    type_url: SECRET.to_owned(),
                    value: secret.encode_to_vec().into(),
                }
            });
            Some(Ok(DiscoveryResponse {
                version_info: "1".to_owned(),
                resources: secrets.collect(),
                type_url: SECRET.to_owned(),
                nonce: "1".to_owned(),
                control_plane: None,
            }))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("fetch"))
    }
}

fn inline(pem: String) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineString(pem)),
    }
}
