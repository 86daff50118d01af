//! Envoy's life, with a real Envoy. Needs root, and ISTIO_VM_AGENT_ENVOY.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test has processes, tasks and files of its own, and what can't be done fails the case"
)]

mod admin;
mod adoption;
mod calls;
mod drain;
mod istiod;
mod log;
mod output;
mod processes;
mod start;
mod takeover;
mod vm;
