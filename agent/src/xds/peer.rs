//! The wall between Envoy's stream and what answers it.
//!
//! The relay, and the conversation that it keeps with Envoy, know a [`Peer`] and nothing of its transport. There are two
//! kinds: istiod (`istiod`), and the snapshot of what Envoy accepted last (`snapshot::peer`), which serves an Envoy that has
//! nothing while no istiod does. The snapshot is sent the frames that istiod would be sent, answers with frames, and is left
//! for istiod as soon as that answers. istiod is told then what Envoy has, by name and version (`session`), whoever gave it.
//!
//! Configuration passes here as bytes.

use std::pin::Pin;

use anyhow::Error;
use istio_api::frame::Frame;

use crate::facts::{HostState, Membership};

/// The one that answers Envoy on one stream.
pub(super) trait Peer: Send {
    /// Name of the peer for logs and `status`: `host:port (ip)`.
    fn address(&self) -> &str;

    /// True for istiod; false for what serves only while no istiod does.
    fn is_control_plane(&self) -> bool;

    /// True when this is the control plane `selected` (`host:port`), at an address where the membership has it, and spoken
    /// to from an address that the machine still has, with no sleep since. A peer of which that is not true is left as soon
    /// as one of which it is has answered.
    fn is_at(&self, selected: &str, membership: &Membership, host: &HostState) -> bool;

    /// Completes when there is room for a request of Envoy's beside the agent's own. Holds no borrow of the peer.
    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Takes a request and waits for nobody. After one that there was no room for, [`Peer::next`] fails.
    fn send(&mut self, request: Frame);

    /// The next response. Loses nothing when it is dropped.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Frame, Disconnect>> + Send + '_>>;
}

/// The end of a peer's stream.
#[derive(Debug)]
pub(super) struct Disconnect {
    /// The reason why it is over.
    pub(super) error: Error,
    /// The control plane (`host:port`) that fell silent, so that another try there would only wait.
    pub(super) silent: Option<String>,
}
