//! The end-to-end cases, by story. Each runs in namespaces of its own, so any of them can run beside any other.

mod standin;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Cases wait more than they work; more than two at once and their deadlines measure the machine.
    arguments.test_threads.get_or_insert(2);
    let trials: Vec<Trial> = standin::trials();
    libtest_mimic::run(&arguments, trials).exit_code()
}
