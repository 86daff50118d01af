//! Envoy's access log, and its own.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::admin::set_log_level;
use crate::calls::{call, with_echoes};
use crate::vm::{Vm, eventually};

#[tokio::test]
async fn access_log_is_read_by_this_agent_and_the_next() {
    let vm = Vm::new();
    let lines = || vm.log.text().matches("envoy::access").count();
    let case = async {
        let mut agent = vm.agent();
        agent.ready().await;
        drop(call().await);
        eventually("a line of the access log", || lines() == 1).await;

        agent.die();
        drop(call().await);
        assert_eq!(lines(), 1);
        let mut agent = vm.agent();
        agent.ready().await;
        eventually("the line that nobody read", || lines() == 2).await;
        drop(call().await);
        eventually("the next line", || lines() == 3).await;
        agent.drain().await;
    };
    with_echoes(case).await;
}

#[tokio::test]
async fn envoy_serves_on_while_nobody_reads_what_it_writes() {
    let vm = Vm::new();
    let case = async {
        let mut agent = vm.agent();
        let (pid, ..) = agent.ready().await;
        agent.die();
        for fifo in [vm.options.paths.envoy_output(), vm.options.paths.envoy_errors()] {
            fill(&fifo);
        }
        // Each call writes an access log line and, at this level, many of Envoy's own.
        set_log_level(&vm, "debug").await;
        for _ in 0..100 {
            drop(call().await);
        }
        assert!(vm.options.admin().readiness().await.unwrap().is_ready());
        set_log_level(&vm, "warning").await;

        let mut agent = vm.agent();
        assert_eq!(agent.ready().await, (pid, true, 0));
        eventually("all lines", || vm.log.text().matches("envoy::access").count() >= 100).await;
        agent.drain().await;
    };
    with_echoes(case).await;
}

/// Writes until no more goes in.
fn fill(fifo: &Path) {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap();
    let mut file = fs::OpenOptions::new()
        .write(true)
        .custom_flags(nonblocking)
        .open(fifo)
        .unwrap();
    let line = format!("{}\n", "x".repeat(1023));
    while file.write_all(line.as_bytes()).is_ok() {}
}
