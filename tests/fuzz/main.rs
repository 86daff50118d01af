#![no_main]
//! Feeds the parser that `FUZZ_TARGET` names with what libFuzzer makes up.

use std::alloc::System;
use std::env;
use std::sync::LazyLock;

use cap::Cap;
use istio_vm_agent::fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

/// More than libFuzzer and a whole corpus need: an input that makes its parser ask for the rest is a finding.
const MEMORY: usize = 1 << 30;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY);

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = env::var("FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|(name, _)| *name == wanted) {
        Some((_, target)) => *target,
        None => {
            let known: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            panic!("FUZZ_TARGET={wanted:?} is none of {}", known.join(" "))
        }
    }
});

fuzz_target!(|input: &[u8]| TARGET.feed(input));
