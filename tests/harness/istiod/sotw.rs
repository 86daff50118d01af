//! A state-of-the-world stream.

use std::collections::{BTreeMap, BTreeSet};

use istio_api::ads::{ControlPlane, DEBUG, DiscoveryRequest, DiscoveryResponse, SYNC_STATUS};
use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};

use super::ads::{Asks, Session};
use super::delta::broken_if;
use super::state::Service;

type Responses = Sender<Result<DiscoveryResponse, Status>>;

/// Serves until either side ends it.
pub(super) async fn serve(mut session: Session, mut requests: Streaming<DiscoveryRequest>, responses: Responses) {
    let mut config = session.state.config.subscribe();
    let mut dropped = session.state.dropped.subscribe();
    // The names that the client wants of each type; none is all.
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                let answered = answer(&mut session, &mut wanted, request, &responses).await;
                if let Err(status) = answered {
                    let _ = responses.send(Err(status)).await;
                    return;
                }
            }
            _ = config.changed() => {
                let types = session.state.config.borrow().types().to_vec();
                for type_url in types {
                    if let Some(names) = wanted.get(&type_url) {
                        push(&mut session, &type_url, names, &responses).await;
                    }
                }
            }
            _ = dropped.changed() => return,
            () = responses.closed() => return,
        }
    }
}

async fn answer(
    session: &mut Session,
    wanted: &mut BTreeMap<String, BTreeSet<String>>,
    request: DiscoveryRequest,
    responses: &Responses,
) -> Result<(), Status> {
    let type_url = request.type_url;
    let asks = session.take(
        request.node.as_ref(),
        &type_url,
        &request.response_nonce,
        request.error_detail,
    )?;
    let names: BTreeSet<String> = request.resource_names.into_iter().collect();
    if asks == Asks::Resources && wanted.get(&type_url) != Some(&names) {
        push(session, &type_url, &names, responses).await;
        wanted.insert(type_url, names);
    }
    Ok(())
}

async fn push(session: &mut Session, type_url: &str, names: &BTreeSet<String>, responses: &Responses) {
    if session.state.withholds(type_url) {
        return;
    }
    let fault = session.state.fault(Service::Ads);
    let all = match type_url {
        DEBUG => session.state.debugged(names),
        _ => session.state.config.borrow().resources(type_url),
    };
    let named = all
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.contains(name));
    let nonce = session.next_nonce();
    let response = DiscoveryResponse {
        version_info: nonce.clone(),
        resources: named.map(|(_, any)| broken_if(fault, any)).collect(),
        type_url: type_url.to_owned(),
        nonce,
        control_plane: (type_url == SYNC_STATUS).then(|| ControlPlane {
            identifier: session.state.identifier(),
        }),
    };
    let _ = responses.send(Ok(response)).await;
}
