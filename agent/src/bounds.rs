//! What keeps one client from taking what all need, and says so: places that are shared fairly, and counts of what was
//! turned away.

mod client;
mod refusals;
mod shares;

pub use client::Client;
pub use refusals::{Refusals, Refused};
pub use shares::{Place, Shares};
