//! The agent that makes a plain VM a first-class member of an Istio mesh.
//!
//! ```text
//! main → cli → app → host_events · join · hosts · identity · xds · dns · intercept · envoy · workload · health · status ·
//!                    metrics · sidecar · manifests · upgrade
//!                        over part (what each of them gives to app), facts (what flows), host (the machine),
//!                             supervise (what runs), bounds, terminal, config, control_plane (how istiod is reached, and
//!                             which one), web (others over HTTP), google (the metadata server, the GKE API), kube (an
//!                             API server), docker (the Engine API), oci (images in their registries), probing (one
//!                             probe of an application)
//! ```
//!
//! Features never call each other: each reads and publishes `facts` through `watch` channels, and `app`
//! is the one place that connects them.

#![cfg_attr(
    test,
    expect(
        clippy::disallowed_methods,
        reason = "tests make what the agent meets: files, processes, tasks"
    )
)]

pub mod app;
pub mod bounds;
pub mod cli;
pub mod config;
pub mod control_plane;
pub mod dns;
mod docker;
pub mod envoy;
pub mod facts;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod google;
pub mod health;
pub mod host;
pub mod host_events;
pub mod hosts;
pub mod identity;
pub mod intercept;
pub mod join;
mod kube;
mod manifests;
pub mod metrics;
mod oci;
pub mod part;
mod probing;
mod release;
pub mod sidecar;
pub mod status;
pub mod supervise;
pub mod telemetry;
mod terminal;
pub mod upgrade;
mod web;
pub mod workload;
pub mod xds;
