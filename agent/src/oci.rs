//! Images in their registries, by the registries' own protocol (opencontainers/distribution-spec): no Docker is asked.
//!
//! Whatever a registry sends is bounded, and counts only when its digest is the one that was asked for.

mod challenge;
mod client;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod manifest;
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use client::{Access, Image};
