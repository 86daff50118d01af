//! The end-to-end cases, by story. Each runs in namespaces of its own, so any of them can run beside any other.
//!
//! A case that can be tried on either control plane is listed once for each: `stand-in istiod: …`, `real istiod: …`.
//! The latter need Istio's programs in $LAB_BIN, and are listed as ignored without it.

mod black_start;
mod calls;
mod changing;
mod checking;
mod demo;
mod documented;
mod envoy;
mod explaining;
mod failover;
mod faults;
mod fleet;
mod floods;
mod forged;
mod harm;
mod health;
mod host_events;
mod https;
mod import;
mod joining;
mod kubernetes;
mod leaving;
mod migrating;
mod monitoring;
mod package;
#[expect(
    dead_code,
    clippy::unwrap_used,
    reason = "packets of a fixed form, of which a case needs one kind"
)]
#[path = "../../agent/tests/intercept/packet.rs"]
mod packet;
mod parts;
mod rollout;
mod rotation;
mod setup;
mod several;
mod soak;
mod standin;
mod survival;
mod telling;

use std::process::ExitCode;

use anyhow::Result;
use e2e::mesh::{Kind, real_is_at_hand};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Cases wait more than they work; with more than two at once their deadlines measure the machine.
    arguments.test_threads.get_or_insert(2);
    let stories = [
        setup::trials,
        demo::trials,
        standin::trials,
        parts::trials,
        calls::trials,
        envoy::trials,
        health::trials,
        host_events::trials,
        checking::trials,
        telling::trials,
        monitoring::trials,
        explaining::trials,
        faults::trials,
        failover::trials,
        leaving::trials,
        forged::trials,
        floods::trials,
        fleet::trials,
        survival::trials,
        black_start::trials,
        changing::trials,
        rollout::trials,
        several::trials,
        harm::trials,
        rotation::trials,
        https::trials,
        documented::trials,
        package::trials,
        import::trials,
        kubernetes::trials,
        joining::trials,
        soak::trials,
        migrating::trials,
    ];
    let trials = stories.iter().flat_map(|trials| trials()).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The same case on both control planes.
fn both(name: &str, case: impl Fn(Kind) -> Result<()> + Clone + Send + 'static) -> [Trial; 2] {
    let with_stand_in = case.clone();
    [
        stand_in_only(name, move || with_stand_in(Kind::StandIn)),
        real_only(&format!("real istiod: {name}"), move || case(Kind::Real)),
    ]
}

fn stand_in_only(name: &str, case: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(format!("stand-in istiod: {name}"), move || told(case()))
}

fn real_only(name: &str, case: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        if !real_is_at_hand() {
            return Ok(Completion::ignored_with("no real istiod: LAB_BIN is not set"));
        }
        told(case())?;
        Ok(Completion::Completed)
    })
}

/// A figure of a case, which is no verdict.
#[expect(clippy::print_stderr, reason = "for whoever reads the output")]
fn note(what: &str, text: &str) {
    eprintln!("{what}: {text}");
}

/// With all of its causes.
fn told(ended: Result<()>) -> Result<(), Failed> {
    ended.map_err(|error| format!("{error:#}").into())
}
