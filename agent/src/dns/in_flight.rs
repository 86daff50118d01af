//! Queries that the VM's servers are being asked, each of them once: whoever asks the same meanwhile waits for the same answer.
//!
//! An answer counts by its query's port and id, which whoever forges one has to guess. Of a query that is out a hundred times
//! any of a hundred would do (RFC 5452, 5), and what is taken for the answer is kept for everybody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::OnceCell;

type Answer = OnceCell<Option<Vec<u8>>>;

/// Queries by what tells them apart in the cache.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<Box<[u8]>, Weak<Answer>>>);

impl InFlight {
    /// The answer of `ask`, or of somebody who asks the same already. When the one who asks gives up, the next
    /// one asks.
    pub(super) async fn once<F>(&self, key: Box<[u8]>, ask: F) -> Option<Vec<u8>>
    where
        F: Future<Output = Option<Vec<u8>>>,
    {
        let answer = self.answer(key);
        answer.get_or_init(|| ask).await.clone()
    }

    fn answer(&self, key: Box<[u8]>) -> Arc<Answer> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = all.get(&key).and_then(Weak::upgrade) {
            return answer;
        }
        // As many are left as there are places for queries that wait.
        all.retain(|_, answer| answer.strong_count() > 0);
        let answer = Arc::default();
        all.insert(key, Arc::downgrade(&answer));
        answer
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;

    use super::*;

    fn key(name: &str) -> Box<[u8]> {
        name.as_bytes().into()
    }

    #[test]
    fn query_that_is_asked_already_is_not_asked_again_and_who_gives_up_is_followed_by_the_next() {
        let all = InFlight::default();
        let mut first = Box::pin(all.once(key("a"), pending()));
        assert!(first.as_mut().now_or_never().is_none());
        let mut second = Box::pin(all.once(key("a"), ready(Some(vec![2]))));
        assert!(second.as_mut().now_or_never().is_none(), "asked twice at once");
        let other = all.once(key("b"), ready(Some(vec![3]))).now_or_never();
        assert_eq!(other, Some(Some(vec![3])));
        drop(first);
        assert_eq!(second.as_mut().now_or_never(), Some(Some(vec![2])));
        let anew = all.once(key("a"), ready(None)).now_or_never();
        assert_eq!(anew, Some(None), "what is over is kept elsewhere");
        assert_eq!(all.0.lock().unwrap().len(), 1, "what is over is forgotten");
    }
}
