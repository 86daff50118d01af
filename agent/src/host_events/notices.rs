//! Notices of Google's, which tell what is about to be done to the VM; by its metadata server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::facts::{Eviction, HostEvent};
use crate::google::{Metadata, Value};
use crate::supervise::Backoff;

/// `TRUE` from the moment on in which the instance has 30 s left.
const PREEMPTED: &str = "instance/preempted";
/// `NONE`, `MIGRATE_ON_HOST_MAINTENANCE` or `TERMINATE_ON_HOST_MAINTENANCE`.
const MAINTENANCE: &str = "instance/maintenance-event";
/// Waits after a question that failed, or was answered at once with nothing new.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Publishes the VM's eviction once the instance is preempted.
pub(super) async fn follow_preemption(
    metadata: Arc<Metadata>,
    eviction: watch::Sender<Option<Eviction>>,
) -> Infallible {
    follow(&metadata, PREEMPTED, |value| {
        if value.eq_ignore_ascii_case("TRUE") {
            tracing::warn!(code = HostEvent::Preempted.code(), "Google preempts this VM");
            eviction.send_replace(Some(Eviction {
                reason: "Google preempts it".to_owned(),
                at: Instant::now(),
            }));
        }
    })
    .await
}

/// Tells of maintenance. A stop for it may be announced an hour before, and comes as a shutdown: until then the VM serves.
pub(super) async fn follow_maintenance(metadata: Arc<Metadata>) -> Infallible {
    let mut is_told = false;
    follow(&metadata, MAINTENANCE, |value| {
        let code = HostEvent::Maintenance.code();
        match value {
            "NONE" if is_told => tracing::info!(code, "Google's maintenance of this VM's host is over"),
            "NONE" => {}
            _ => tracing::warn!(code, notice = value, "Google is about to maintain this VM's host"),
        }
        is_told = value != "NONE";
    })
    .await
}

/// Hands each value at `path` to `tell`, the first one too.
async fn follow(metadata: &Metadata, path: &str, mut tell: impl FnMut(&str)) -> Infallible {
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    let mut last: Option<Value> = None;
    loop {
        let asked = Instant::now();
        match metadata.next(path, last.as_ref()).await {
            Ok(value) => {
                // The server answers at the end of the wait, too.
                let is_news = last.as_ref().is_none_or(|last| last.text != value.text);
                if is_news {
                    tell(&value.text);
                }
                last = Some(value);
                sleep(pause(&mut backoff, is_news, asked.elapsed())).await;
            }
            Err(error) => {
                let wait = backoff.next_wait();
                tracing::debug!(retry_in = ?wait, "{error:#}");
                sleep(wait).await;
            }
        }
    }
}

/// Time before the next question, after an answer that was kept for so long: a server that doesn't keep questions until there
/// is news would be asked without end.
fn pause(backoff: &mut Backoff, is_news: bool, kept: Duration) -> Duration {
    if is_news || kept >= MIN_BACKOFF {
        backoff.reset();
        return Duration::ZERO;
    }
    backoff.next_wait()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::google::fixtures::{MetadataServer, client};

    #[tokio::test]
    async fn preemption_is_told_as_soon_as_the_metadata_server_says_so() {
        let server = MetadataServer::start().await;
        server.set_value(PREEMPTED, "FALSE");
        let eviction = watch::Sender::new(None);
        let mut told = eviction.subscribe();
        let metadata = Arc::new(client(&server));
        let story = async {
            server.asked(PREEMPTED, 2).await;
            assert!(told.borrow().is_none());
            server.set_value(PREEMPTED, "TRUE");
            told.wait_for(Option::is_some).await.unwrap();
        };
        tokio::select! {
            never = follow_preemption(Arc::clone(&metadata), eviction.clone()) => match never {},
            () = story => {}
        }
    }

    #[test]
    fn server_that_keeps_no_question_is_asked_like_one_that_fails() {
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        let at_once = Duration::from_millis(3);
        assert_eq!(pause(&mut backoff, true, at_once), Duration::ZERO);
        let waits = [(); 8].map(|()| pause(&mut backoff, false, at_once));
        assert!(waits[0] >= MIN_BACKOFF && waits[7] >= MAX_BACKOFF, "{waits:?}");
        // As Google's server does.
        assert_eq!(pause(&mut backoff, false, MAX_BACKOFF), Duration::ZERO);
        assert!(pause(&mut backoff, false, at_once) < MAX_BACKOFF, "it starts anew");
    }

    #[tokio::test]
    async fn values_are_told_when_they_change_and_a_server_that_fails_is_asked_again() {
        let server = MetadataServer::start().await;
        let (metadata, told) = (client(&server), std::sync::Mutex::new(Vec::new()));
        let values = watch::Sender::new(0);
        let mut count = values.subscribe();
        let tell = |value: &str| {
            told.lock().unwrap().push(value.to_owned());
            values.send_modify(|count| *count += 1);
        };
        let story = async {
            // There is no such value yet.
            server.asked(MAINTENANCE, 1).await;
            for (number, value) in ["NONE", "MIGRATE_ON_HOST_MAINTENANCE", "NONE"].into_iter().enumerate() {
                server.set_value(MAINTENANCE, value);
                count.wait_for(|count| *count > number).await.unwrap();
            }
        };
        tokio::select! {
            never = follow(&metadata, MAINTENANCE, tell) => match never {},
            () = story => {}
        }
        assert_eq!(*told.lock().unwrap(), ["NONE", "MIGRATE_ON_HOST_MAINTENANCE", "NONE"]);
    }
}
