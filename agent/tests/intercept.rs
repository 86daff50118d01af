//! Interception on the real kernel: namespaces of its own, real sockets, both backends. Needs root, and fails
//! without it.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that makes namespaces, and prints what it measures"
)]

#[path = "intercept/attacks.rs"]
mod attacks;
#[path = "intercept/claims.rs"]
mod claims;
#[path = "intercept/docker.rs"]
mod docker;
#[path = "intercept/firewalls.rs"]
mod firewalls;
#[path = "intercept/installed.rs"]
mod installed;
#[path = "intercept/istio.rs"]
mod istio;
#[path = "intercept/locked.rs"]
mod locked;
#[path = "intercept/neighbors.rs"]
mod neighbors;
#[path = "intercept/packet.rs"]
mod packet;
#[path = "intercept/redirects.rs"]
mod redirects;
#[path = "intercept/resolved.rs"]
mod resolved;
#[path = "intercept/rig.rs"]
mod rig;
#[path = "intercept/rules.rs"]
mod rules;
#[path = "intercept/run.rs"]
mod run;

/// Rules that Docker and an operator may have put there first.
const FOREIGN: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -p tcp -m tcp --dport 3550 -j REDIRECT --to-ports 8080
COMMIT
*filter
-A INPUT -s 198.51.100.0/24 -j DROP
COMMIT
";
