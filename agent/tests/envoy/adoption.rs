//! An Envoy that an earlier agent started.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use istio_vm_agent::envoy;
use serde_json::json;

use crate::processes::is_running;
use crate::vm::{Vm, eventually};

#[tokio::test]
async fn envoy_outlives_the_agent_and_is_adopted() {
    let vm = Vm::new();
    let mut agent = vm.agent();
    let (pid, ..) = agent.ready().await;
    agent.die();
    assert_eq!(vm.running(), Some(pid));
    let mut agent = vm.agent();
    assert_eq!(agent.ready().await, (pid, true, 0));

    // As if the first agent had died before it had recorded: what that Envoy runs is not known.
    agent.die();
    fs::remove_file(vm.options.paths.envoy_record()).unwrap();
    let mut agent = vm.agent();
    let (next, adopted, _) = agent.ready_after(pid).await;
    assert!(!adopted);
    eventually("the first Envoy's end", || !is_running(pid)).await;
    agent.die();

    let stopped = envoy::stop_recorded(&vm.options.host, &vm.options.paths).await.unwrap();
    assert_eq!((stopped, vm.running()), (Some(next), None));
    assert!(!is_running(pid));
    assert_eq!(vm.leftovers(), Vec::<String>::new());
    let again = envoy::stop_recorded(&vm.options.host, &vm.options.paths).await.unwrap();
    assert_eq!(again, None);
}

#[tokio::test]
async fn a_stale_record_harms_nobody() {
    let vm = Vm::new();
    // Its pid is that of another process of Envoy's user now.
    let mut bystander = bystander();
    let record = json!({
        "pid": bystander.id(),
        "start_time": 1,
        "command_line": [],
        "binary": { "device": 1, "inode": 1, "modified": [1, 1] },
    });
    vm.options
        .host
        .write(&vm.options.paths.envoy_record(), &record.to_string(), 0o600, None)
        .unwrap();
    assert_eq!(vm.running(), None);
    let mut agent = vm.agent();
    let (pid, adopted, _) = agent.ready().await;
    assert!(!adopted && pid != bystander.id());
    agent.drain().await;
    assert_eq!(bystander.try_wait().unwrap(), None);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a process that is not ours")]
fn bystander() -> Child {
    Command::new("sleep").arg("600").uid(1337).gid(1337).spawn().unwrap()
}
