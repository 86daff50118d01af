//! A delta stream.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use istio_api::rpc::Any;
use tokio::sync::mpsc::Sender;
use tonic::{Status, Streaming};

use super::ads::{Asks, Session};
use super::state::{Fault, Service};

type Responses = Sender<Result<DeltaDiscoveryResponse, Status>>;

/// Resources of a type that the client wants, and has.
#[derive(Debug, Default)]
struct Subscription {
    /// All there is; for clusters, listeners and the name table.
    wildcard: bool,
    names: BTreeSet<String>,
    sent: BTreeMap<String, Bytes>,
}

/// Serves until either side ends it.
pub(super) async fn serve(mut session: Session, mut requests: Streaming<DeltaDiscoveryRequest>, responses: Responses) {
    let mut config = session.state.config.subscribe();
    let mut dropped = session.state.dropped.subscribe();
    let mut subscriptions: BTreeMap<String, Subscription> = BTreeMap::new();
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                let answered = answer(&mut session, &mut subscriptions, request, &responses).await;
                if let Err(status) = answered {
                    let _ = responses.send(Err(status)).await;
                    return;
                }
            }
            _ = config.changed() => {
                let types = session.state.config.borrow().types().to_vec();
                for type_url in types {
                    if let Some(subscription) = subscriptions.get_mut(&type_url) {
                        push(&mut session, &type_url, subscription, false, &responses).await;
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
    subscriptions: &mut BTreeMap<String, Subscription>,
    request: DeltaDiscoveryRequest,
    responses: &Responses,
) -> Result<(), Status> {
    let type_url = request.type_url;
    let asks = session.take(
        request.node.as_ref(),
        &type_url,
        &request.response_nonce,
        request.error_detail,
    )?;
    if asks == Asks::Nothing {
        return Ok(());
    }
    let first = !subscriptions.contains_key(&type_url);
    let subscription = subscriptions.entry(type_url.clone()).or_default();
    let asked = request.resource_names_subscribe;
    subscription.wildcard |= first && asked.is_empty() || asked.iter().any(|name| name == "*");
    for name in &asked {
        // Asked for again means: send it again.
        subscription.sent.remove(name);
    }
    subscription
        .names
        .extend(asked.iter().filter(|name| *name != "*").cloned());
    for name in &request.resource_names_unsubscribe {
        subscription.names.remove(name);
        subscription.sent.remove(name);
    }
    if first {
        // What it still has and is gone here is to be removed; all else is sent again, as istiod does.
        let kept = request
            .initial_resource_versions
            .into_keys()
            .map(|name| (name, Bytes::new()));
        subscription.sent.extend(kept);
    }
    if first || !asked.is_empty() {
        push(session, &type_url, subscription, true, responses).await;
    }
    Ok(())
}

/// Sends what differs from what was sent; `even_if_empty` for a client that waits.
async fn push(
    session: &mut Session,
    type_url: &str,
    subscription: &mut Subscription,
    even_if_empty: bool,
    responses: &Responses,
) {
    if session.state.withholds(type_url) {
        return;
    }
    let fault = session.state.fault(Service::Ads);
    let mut wanted = session.state.config.borrow().resources(type_url);
    wanted.retain(|name, _| subscription.wildcard || subscription.names.contains(name));
    let unknown = subscription
        .names
        .iter()
        .filter(|name| !subscription.wildcard && !wanted.contains_key(*name));
    let gone = subscription.sent.keys().filter(|name| !wanted.contains_key(*name));
    let removed: BTreeSet<String> = gone.chain(unknown.filter(|_| even_if_empty)).cloned().collect();
    wanted.retain(|name, any| subscription.sent.get(name) != Some(&any.value));
    if wanted.is_empty() && removed.is_empty() && !even_if_empty {
        return;
    }
    subscription.sent.retain(|name, _| !removed.contains(name));
    subscription
        .sent
        .extend(wanted.iter().map(|(name, any)| (name.clone(), any.value.clone())));
    let resources = wanted.into_iter().map(|(name, any)| Resource {
        name,
        version: String::new(),
        resource: Some(broken_if(fault, any)),
    });
    let response = DeltaDiscoveryResponse {
        system_version_info: "e2e".to_owned(),
        resources: resources.collect(),
        type_url: type_url.to_owned(),
        nonce: session.next_nonce(),
        removed_resources: removed.into_iter().collect(),
    };
    let _ = responses.send(Ok(response)).await;
}

/// Under [`Fault::Garbage`]: bytes that are no message at all.
pub(super) fn broken_if(fault: Option<Fault>, any: Any) -> Any {
    match fault {
        Some(Fault::Garbage) => Any {
            value: Bytes::from_static(b"\xff\xff\xff\xff"),
            ..any
        },
        _ => any,
    }
}
