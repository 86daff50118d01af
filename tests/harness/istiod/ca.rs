//! CreateCertificate.

use std::sync::Arc;

use istio_api::ca::istio_certificate_service_server::IstioCertificateService;
use istio_api::ca::{IstioCertificateRequest, IstioCertificateResponse};
use tonic::{Request, Response, Status, async_trait};

use super::state::{CertificateCall, Fault, Service, State};

/// The service.
#[derive(Debug)]
pub(super) struct Ca(pub(super) Arc<State>);

#[async_trait]
impl IstioCertificateService for Ca {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let state = &self.0;
        match state.fault(Service::Ca) {
            Some(Fault::Refuse) => return Err(Status::unavailable("told to refuse")),
            Some(Fault::Hang) => std::future::pending::<()>().await,
            Some(Fault::Garbage) => {
                let cert_chain = vec!["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(); 2];
                return Ok(Response::new(IstioCertificateResponse { cert_chain }));
            }
            None => {}
        }
        let (caller, by) = state.authenticate(&request)?;
        let cluster_id = request
            .metadata()
            .get("clusterid")
            .and_then(|value| value.to_str().ok());
        let cluster_id = cluster_id.map(str::to_owned);
        let request = request.into_inner();
        let leaf = state
            .pki
            .sign(&request.csr, &caller.spiffe_id(), state.certificate_lifetime())
            .map_err(|error| Status::invalid_argument(format!("{error:#}")))?;
        state.record_certificate(CertificateCall {
            caller,
            by,
            cluster_id,
            validity: request.validity_duration,
        });
        Ok(Response::new(IstioCertificateResponse {
            cert_chain: vec![leaf, state.pki.signing_root_pem()],
        }))
    }
}
