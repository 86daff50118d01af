//! Answers on their way to Envoy: those of all streams together are bounded in number.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::Stream;
use tonic::Status;

/// An answer, and the turn in which it was made.
type Made<A> = (A, OwnedSemaphorePermit);

/// One stream's. Of an answer that was taken, the turn is given on when the next one is asked for: only then has it gone to
/// Envoy.
#[derive(Debug)]
pub(super) struct Answers<A> {
    made: mpsc::Receiver<Made<A>>,
    turn: Option<OwnedSemaphorePermit>,
}

impl<A> Answers<A> {
    pub(super) fn new() -> (mpsc::Sender<Made<A>>, Self) {
        let (sender, made) = mpsc::channel(1);
        (sender, Self { made, turn: None })
    }
}

impl<A> Stream for Answers<A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.turn = None;
        Poll::Ready(ready!(self.made.poll_recv(context)).map(|(answer, turn)| {
            self.turn = Some(turn);
            Ok(answer)
        }))
    }
}
