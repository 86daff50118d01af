//! Harness of the end-to-end cases: a network of namespaces per case, the mesh in it (a stand-in istiod of
//! ours, or the real one), a pod with its own Envoy, Docker, and the agent under test.
//!
//! ```text
//! mesh      a case's world: network + control plane + pod + VM
//!   network, process, files      namespaces, what runs in them, the /etc they see
//!   istiod                       the stand-in: CA, ADS, registry, faults on command
//!   kubernetes                   etcd and kube-apiserver
//!   real                         etcd, kube-apiserver, istiod, istioctl, pilot-agent from $LAB_BIN
//!   web, google                  web servers with TLS; Google's, as a VM on Compute Engine sees them
//!   pki, clock                   whom all of them are known by, at which time of day
//!   pod, envoy                   the other end of a call
//!   booted, cgroup               a VM with a systemd of its own
//!   vm, docker, disk, snapshot   the VM: the agent under test and what it may change
//!   bare, called               a Debian with Rust alone, and the programs that it must be given
//!   flood                        who takes more than a client's share
//!   load, calls                  what is called, and what came of it
//! ```
//!
//! All of it is synchronous but for the servers: a case reads from top to bottom, and waits only by
//! [`eventually()`].

pub mod bare;
pub mod booted;
pub mod bundle;
pub mod called;
pub mod calls;
mod cgroup;
pub mod clock;
mod disk;
pub mod docker;
pub mod envoy;
pub mod files;
pub mod fleet;
pub mod flood;
pub mod google;
pub mod http;
pub mod istiod;
pub mod kubernetes;
pub mod mesh;
pub mod network;
pub mod pki;
pub mod pod;
pub mod process;
pub mod programs;
pub mod real;
pub mod registry;
pub mod snapshot;
pub mod sweep;
pub mod vm;
pub mod web;

pub use kit::{PATIENCE, eventually};
