//! What happens to the VM itself: its network, its clocks, what it is short of, and what its cloud is about to do.
//!
//! Publishes `HostState`, which others react to, and the VM's eviction. Changes nothing, and never fails: where something
//! can't be watched, nothing is told of it. `facts::HostEvent` lists the events, those of other parts among them.

mod clock;
mod network;
mod notices;
mod part;
mod resources;

pub use part::HostEventsPart;
