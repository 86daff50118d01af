//! Docker's Engine API: the connection, images, and the marks of the agent's containers. Every call has a deadline,
//! every error its remedy.

mod call;
mod copy;
mod engine;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod image;
mod mark;
mod prune;
mod pull;
mod registry;

pub(crate) use call::{CALL_TIMEOUT, absent_is_none, bounded};
pub(crate) use engine::Engine;
pub(crate) use image::ImageRef;
pub(crate) use mark::{MANAGED, new_labels};
pub(crate) use pull::Progress;
pub(crate) use registry::{Credentials, Registries};
