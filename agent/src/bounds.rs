//! Bounds on what others may take: places that are shared fairly among clients, counts of those that were turned away,
//! and the length of words that are repeated.

mod client;
mod refusals;
mod shares;
mod words;

pub use client::Client;
pub use refusals::{Refusals, Refused};
pub use shares::{Place, Shares};
pub use words::{bounded_line, bounded_words};
