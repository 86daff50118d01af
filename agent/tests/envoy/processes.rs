//! Processes, from outside.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

pub(crate) fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}

pub(crate) fn is_running(pid: u32) -> bool {
    // Nobody waits for the child of an agent that died, or the runtime of another test does at this moment.
    let ended = |stat: &String| stat.contains(") Z ") || stat.contains(") X ");
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !ended(&stat))
}

pub(crate) fn proc(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
}
