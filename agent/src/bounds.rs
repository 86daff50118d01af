//! What keeps one client from taking what all need, and says so: what was turned away is counted.

mod refusals;

pub use refusals::{Refusals, Refused};
