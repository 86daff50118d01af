//! The workload against a real dockerd. Needs root, docker.io, docker-registry, busybox-static and iproute2, and says so.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test has processes and files of its own, and fails where it can't go on"
)]

mod agent;
mod dockerd;
mod faults;
mod images;
mod life;
mod registry;
mod replacing;
mod rights;
mod strangers;
