//! From istiod to Envoy: everything but the name table.
//!
//! istiod sends the types that were asked for and no other, and but for the name table it was Envoy who asked.
//! So a type that the agent has never heard of goes to Envoy as well: it is Envoy's to accept or refuse, where
//! an agent that acknowledged it would tell istiod that something is in use which is not.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use istio_api::frame::{Form, Frame};
use istio_api::nds::NAME_TABLE;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use super::upstream::Progress;
use super::{Context, own_types};
use crate::facts::NameTable;

/// How long istiod may take to answer the first request; it takes seconds when it is throttled.
const FIRST_ANSWER: Duration = Duration::from_secs(30);

/// The direction from istiod.
#[derive(Debug)]
pub(super) struct Responses<'a> {
    pub(super) form: Form,
    pub(super) address: &'a str,
    pub(super) context: &'a Context,
    pub(super) to_envoy: &'a mpsc::Sender<Result<Frame, Status>>,
    pub(super) progress: &'a watch::Sender<Progress>,
}

impl Responses<'_> {
    /// Relays until istiod ends the stream; fails with its reason when it gave one.
    pub(super) async fn pump(self, call: impl Future<Output = Result<Streaming<Frame>, Status>>) -> Result<(), Status> {
        let first = async {
            let mut from_istiod = call.await?;
            let first = from_istiod.message().await?;
            Ok((from_istiod, first))
        };
        let (mut from_istiod, mut next) = timeout(FIRST_ANSWER, first)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("nothing within {FIRST_ANSWER:?}"))))?;
        if next.is_some() {
            self.progress.send_modify(|progress| progress.answered = true);
            self.context.report.connected(self.address);
        }
        // What was accepted last on this stream: a refusal in state-of-the-world form names it.
        let mut names_version = String::new();
        while let Some(frame) = next {
            let head = frame
                .response()
                .map_err(|error| Status::internal(format!("it sent what is no discovery response: {error}")))?;
            if head.type_url == NAME_TABLE {
                let refused = self.take_names(&frame).err();
                if refused.is_none() {
                    names_version = head.version;
                }
                let answer = own_types::acknowledge(self.form, &names_version, &head.nonce, refused);
                self.progress
                    .send_modify(|progress| progress.acknowledgement = Some(answer));
            } else if self.to_envoy.send(Ok(frame)).await.is_err() {
                // Envoy is gone; the relay has noticed as well and ends this.
                return std::future::pending().await;
            }
            next = from_istiod.message().await?;
        }
        Ok(())
    }

    /// Publishes a name table; a bad one changes nothing, and neither does a response without one.
    fn take_names(&self, frame: &Frame) -> Result<(), String> {
        let table = own_types::name_table(self.form, frame).map_err(|error| {
            let error = format!("{error:#}");
            tracing::warn!("refused istiod's name table, the last good one stays: {error}");
            error
        })?;
        if let Some(table) = table {
            self.context.report.names(table.names.len());
            self.publish(table);
        }
        Ok(())
    }

    fn publish(&self, table: NameTable) {
        self.context.names.send_if_modified(|names| {
            let differs = names.as_deref() != Some(&table);
            if differs {
                *names = Some(Arc::new(table));
            }
            differs
        });
    }
}
