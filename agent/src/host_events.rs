//! Events of the VM itself: its network, its clocks, its shortages, and its cloud's notices.
//!
//! Publishes `HostState`, which others react to, and the VM's eviction. Changes nothing, and never fails: where something
//! can't be watched, nothing is told of it. `facts::HostEvent` lists the events, those of other parts among them.

mod clock;
mod network;
mod notices;
mod part;
mod resources;

pub use part::HostEventsPart;
