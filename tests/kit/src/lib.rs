//! What tests of every tier are made of: unit tests of the agent, `agent/tests`, and the end-to-end cases. Nothing here
//! knows the agent, so that its own unit tests can use it.
//!
//! ```text
//! eventually   the one way to wait
//! ```

mod eventually;

pub use eventually::{PATIENCE, eventually, eventually_async};
