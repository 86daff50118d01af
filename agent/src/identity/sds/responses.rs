//! Responses on their way to Envoy: those of all streams together are bounded in number.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::Status;

/// A response, and the turn in which it was made.
type Made<A> = (A, OwnedSemaphorePermit);

/// The responses of one stream. The turn of one that was taken is given on when the next one is asked for: only then has
/// it gone to Envoy.
#[derive(Debug)]
pub(super) struct Responses<A> {
    made: mpsc::Receiver<Made<A>>,
    turn: Option<OwnedSemaphorePermit>,
}

impl<A> Responses<A> {
    pub(super) fn new() -> (mpsc::Sender<Made<A>>, Self) {
        let (sender, made) = mpsc::channel(1);
        (sender, Self { made, turn: None })
    }
}

impl<A> Stream for Responses<A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.turn = None;
        Poll::Ready(ready!(self.made.poll_recv(context)).map(|(response, turn)| {
            self.turn = Some(turn);
            Ok(response)
        }))
    }
}
