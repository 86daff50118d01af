#![no_main]
//! Feeds the parser that `FUZZ_TARGET` names with what libFuzzer makes up.

use std::alloc::System;
use std::collections::BTreeMap;
use std::env;
use std::sync::LazyLock;

use cap::Cap;
use istio_vm_agent::fuzz::TARGETS;
use istio_vm_ctl::fuzz::TARGETS as CTL_TARGETS;
use libfuzzer_sys::fuzz_target;

/// More than libFuzzer and a whole corpus need: an input that makes its parser ask for the rest is a finding.
const MEMORY: usize = 1 << 30;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY);

type Feed = Box<dyn Fn(&[u8]) + Send + Sync>;

static FEED: LazyLock<Feed> = LazyLock::new(|| {
    let agent = TARGETS
        .iter()
        .map(|(name, target)| (*name, Box::new(|input: &[u8]| target.feed(input)) as Feed));
    let ctl = CTL_TARGETS.iter().map(|(name, feed)| (*name, Box::new(feed) as Feed));
    let mut targets: BTreeMap<&str, Feed> = agent.chain(ctl).collect();
    let wanted = env::var("FUZZ_TARGET").unwrap_or_default();
    targets.remove(wanted.as_str()).unwrap_or_else(|| {
        let known: Vec<_> = targets.into_keys().collect();
        panic!("FUZZ_TARGET={wanted:?} is none of {}", known.join(" "))
    })
});

fuzz_target!(|input: &[u8]| FEED(input));
